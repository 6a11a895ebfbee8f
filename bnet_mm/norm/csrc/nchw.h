// One channel of maps in NCHW: each of its N planes is contiguous, and vectors run along a row.
//
// A plane goes through a ring of rows that are converted, normalized and padded with zeros. So the
// taps read aligned numbers of one type without a branch, and nothing but the ring is written twice.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"

namespace bnet {

// The last rows of a plane, enough of them for one row of output.
template <class S, class T>
class RowRing {
 public:
  explicit RowRing(const Shape& shape)
      : s(shape),
        pad(shape.padding()),
        rows(2 * pad + 1),
        stride(round_up(shape.w, kLanes<T>) + 2 * pad),
        numbers(rows * stride, T(0)) {}

  void begin(const S* plane_, T mean_, T rstd_) {
    plane = plane_;
    mean = mean_;
    rstd = rstd_;
    loaded = 0;
  }

  // Loads what is missing up to `row`, as far as the plane has rows.
  void load_until(int64_t row) {
    for (; loaded <= row && loaded < s.h; ++loaded) {
      const S* from = plane + loaded * s.w;
      T* to = &numbers[loaded % rows * stride + pad];
      for (int64_t w = 0; w < s.w; ++w) to[w] = (to_number(from[w]) - mean) * rstd;
    }
  }

  // The first number of a row's left padding.
  const T* row(int64_t index) const { return &numbers[index % rows * stride]; }

 private:
  const Shape s;
  const int64_t pad, rows, stride;
  std::vector<T> numbers;
  const S* plane = nullptr;
  T mean = 0, rstd = 1;
  int64_t loaded = 0;
};

// Adds up the taps of `count` neighbouring vectors of one row of output.
template <int K, int count, class T, class Ring>
inline void taps(const Shape& s, const Ring& ring, const T* weight, Rows valid, int64_t row,
                 int64_t column, Vec<T>* sums) {
  const int k = K ? K : s.k;
  for (int i = valid.first; i < valid.last; ++i) {
    const T* from = ring.row(row + int64_t(i) * s.dilation - s.padding()) + column;
#pragma GCC unroll 7
    for (int j = 0; j < k; ++j) {
      const Vec<T> tap = broadcast(weight[i * k + j]);
      for (int v = 0; v < count; ++v)
        sums[v] += load(from + int64_t(j) * s.dilation + v * kLanes<T>) * tap;
    }
  }
}

// Calls `finish(column, numbers, vector)` for each vector of each row of output; `numbers` of it lie inside.
template <int K, class T, class Ring, class Finish>
inline void convolve_row(const Shape& s, const Ring& ring, const T* weight, T start, int64_t row,
                         Finish finish) {
  constexpr int kMany = 4, lanes = kLanes<T>;
  const Rows valid(s, row);
  int64_t column = 0;
  for (; column + kMany * lanes <= s.w; column += kMany * lanes) {
    Vec<T> sums[kMany];
    for (auto& v : sums) v = broadcast(start);
    taps<K, kMany>(s, ring, weight, valid, row, column, sums);
    for (int v = 0; v < kMany; ++v) finish(column + v * lanes, lanes, sums[v]);
  }
  for (; column < s.w; column += lanes) {
    Vec<T> sums[1] = {broadcast(start)};
    taps<K, 1>(s, ring, weight, valid, row, column, sums);
    finish(column, int(std::min<int64_t>(lanes, s.w - column)), sums[0]);
  }
}

template <int K, class S, class T>
void forward_channel_nchw(const Shape& s, const Forward<S, T>& f, int64_t c, RowRing<S, T>& ring) {
  const T mean = f.mean ? f.mean[c] : T(0), rstd = f.rstd ? f.rstd[c] : T(1);
  const T *weight = f.weight + c * s.k * s.k, bias = f.bias[c];
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * s.pixels();
    ring.begin(f.x + plane, mean, rstd);
    for (int64_t row = 0; row < s.h; ++row) {
      ring.load_until(row + s.padding());
      const int64_t start = plane + row * s.w;
      convolve_row<K>(s, ring, weight, bias, row, [&](int64_t column, int numbers, Vec<T> v) {
        const int64_t at = start + column;
        if (f.residual) v += read<S, T>(f.residual + at, numbers);
        if (f.relu) v = v < 0 ? Vec<T>{} : v;
        write<S, T>(f.y + at, v, numbers);
      });
    }
  }
}

// Sum of `count` contiguous numbers, or of their squared distances from `mean`.
template <bool squares, class S, class T>
inline double sum_contiguous(const S* x, int64_t count, T mean) {
  constexpr int lanes = kLanes<T>;
  double total = 0;
  for (int64_t start = 0; start < count;) {
    // Chunks, so that rounding does not grow with the map.
    const int64_t end = std::min<int64_t>(count, start + 64 * lanes);
    Vec<T> sums[4] = {};
    for (; start + 4 * lanes <= end; start += 4 * lanes)
      for (int v = 0; v < 4; ++v) {
        const Vec<T> x_v = read<S, T>(x + start + v * lanes, lanes) - mean;
        sums[v] += squares ? x_v * x_v : x_v;
      }
    for (; start < end; start += lanes) {
      const int numbers = int(std::min<int64_t>(lanes, end - start));
      for (int i = 0; i < numbers; ++i) {
        const T x_i = to_number(x[start + i]) - mean;
        total += squares ? double(x_i) * x_i : double(x_i);
      }
    }
    total += sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total;
}

template <class S, class T>
void statistics_channel_nchw(const Shape& s, const S* x, int64_t c, T* mean, T* var) {
  const double count = double(s.n) * s.pixels();
  double total = 0, squares = 0;
  for (int64_t n = 0; n < s.n; ++n)
    total += sum_contiguous<false, S, T>(x + (n * s.c + c) * s.pixels(), s.pixels(), 0);
  mean[c] = T(total / count);
  for (int64_t n = 0; n < s.n; ++n)
    squares += sum_contiguous<true, S, T>(x + (n * s.c + c) * s.pixels(), s.pixels(), mean[c]);
  var[c] = T(squares / count);
}

template <int K, class S, class T>
void reduce_channel_nchw(const Shape& s, const Backward<S, T>& b, int64_t c, RowRing<S, T>& ring) {
  constexpr int lanes = kLanes<T>;
  const int k = K ? K : s.k;
  const int64_t pad = s.padding(), width = round_up(s.w, lanes);
  const T* weight = b.weight + c * k * k;
  std::vector<T> row_of_grad(width, T(0)), sums(k * k * lanes, T(0));
  std::vector<double> grad_weight(k * k, 0), inside(k * k, 0), whole_rows(k, 0), in_row(k);
  double grad_bias = 0;
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the map
    for (int t = 0; t < k * k; ++t) grad_weight[t] += sum<T>(load(&sums[t * lanes]));
    std::fill(sums.begin(), sums.end(), T(0));
    steps = 0;
  };
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * s.pixels();
    ring.begin(b.x + plane, b.mean[c], b.rstd[c]);
    for (int64_t row = 0; row < s.h; ++row) {
      ring.load_until(row + pad);
      const S* from = b.grad + plane + row * s.w;
      for (int64_t w = 0; w < s.w; ++w) row_of_grad[w] = to_number(from[w]);
      Vec<T> row_sums = {};
      for (int64_t w = 0; w < width; w += lanes) row_sums += load(&row_of_grad[w]);
      const double row_sum = sum<T>(row_sums);
      grad_bias += row_sum;
      // What each column of the kernel sees of this row: a tap is not used where it falls outside.
      for (int j = 0; j < k; ++j) {
        const int64_t first = std::clamp<int64_t>(pad - int64_t(j) * s.dilation, 0, s.w);
        const int64_t last = std::clamp<int64_t>(s.w + pad - int64_t(j) * s.dilation, first, s.w);
        double outside = 0;
        for (int64_t w = 0; w < first; ++w) outside += row_of_grad[w];
        for (int64_t w = last; w < s.w; ++w) outside += row_of_grad[w];
        in_row[j] = row_sum - outside;
      }
      const Rows valid(s, row);
      if (valid.first == 0 && valid.last == k) {
        for (int j = 0; j < k; ++j) whole_rows[j] += in_row[j];
      } else {
        for (int i = valid.first; i < valid.last; ++i)
          for (int j = 0; j < k; ++j) inside[i * k + j] += in_row[j];
      }
      for (int i = valid.first; i < valid.last; ++i) {
        const T* x = ring.row(row + int64_t(i) * s.dilation - pad);
        T* to = &sums[i * k * lanes];
        if constexpr (K > 0) {
          Vec<T> products[K];
          for (int j = 0; j < K; ++j) products[j] = load(to + j * lanes);
          for (int64_t w = 0; w < s.w; w += lanes) {
            const Vec<T> g = load(&row_of_grad[w]);
#pragma GCC unroll 7
            for (int j = 0; j < K; ++j) products[j] += g * load(x + w + int64_t(j) * s.dilation);
          }
          for (int j = 0; j < K; ++j) store(to + j * lanes, products[j]);
        } else {
          for (int j = 0; j < k; ++j) {
            Vec<T> products = load(to + j * lanes);
            for (int64_t w = 0; w < s.w; w += lanes)
              products += load(&row_of_grad[w]) * load(x + w + int64_t(j) * s.dilation);
            store(to + j * lanes, products);
          }
        }
      }
      steps += width / lanes;
      if (steps >= 512) flush();
    }
  }
  flush();
  double sum_of_grad = 0;
  for (int i = 0; i < k; ++i)
    for (int j = 0; j < k; ++j) {
      const int t = i * k + j;
      sum_of_grad += weight[t] * (inside[t] + whole_rows[j]);
      b.grad_weight[c * k * k + t] = T(grad_weight[t]);
    }
  b.grad_bias[c] = T(grad_bias);
  b.sum_of_grad[c] = T(sum_of_grad);
}

template <int K, class S, class T>
void input_channel_nchw(const Shape& s, const Backward<S, T>& b, int64_t c, RowRing<S, T>& ring,
                        T of_grad, T of_product, bool frozen) {
  const int taps = s.k * s.k;
  std::vector<T> flipped(taps);
  for (int t = 0; t < taps; ++t) flipped[t] = b.weight[c * taps + taps - 1 - t];
  const T mean = frozen ? T(0) : b.mean[c], rstd = b.rstd[c];
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * s.pixels();
    ring.begin(b.grad + plane, T(0), T(1));
    for (int64_t row = 0; row < s.h; ++row) {
      ring.load_until(row + s.padding());
      const int64_t start = plane + row * s.w;
      convolve_row<K>(s, ring, flipped.data(), T(0), row,
                      [&](int64_t column, int numbers, Vec<T> v) {
                        const int64_t at = start + column;
                        if (!frozen) {
                          const Vec<T> x = (read<S, T>(b.x + at, numbers) - mean) * rstd;
                          v -= of_grad + x * of_product;
                        }
                        write<S, T>(b.grad_x + at, v * rstd, numbers);
                      });
    }
  }
}

}  // namespace bnet
