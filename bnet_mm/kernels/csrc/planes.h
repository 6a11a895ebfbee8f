// One channel of contiguous feature maps: a plane, or a band of its rows, goes, converted,
// normalized and padded with zeros, into one row of values, and vectors run along all of it.
//
// Rows lie a padding apart, which is the right one of a row and the left one of the next. What the
// vectors compute in between is not written. So short rows fill the vectors, too.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"

namespace bnet {

// Calls `run(offset, numbers)` for the vectors of a row of `width` values. Of a row that is no
// multiple of a vector the last two overlap; one that is shorter than a vector is run over as
// if it had the values that follow it, as long as there are `room` of these in all.
template <class T, class Run>
inline void along_row(int64_t width, int64_t room, Run run) {
  constexpr int lanes = kLanes<T>;
  if (width < lanes) return run(int64_t(0), int(room >= lanes ? lanes : width));
  int64_t column = 0;
  for (; column + lanes <= width; column += lanes) run(column, lanes);
  if (column < width) run(width - lanes, lanes);
}

// Rows [top, bottom) of a plane.
struct Band {
  int64_t top, bottom;
  int64_t rows() const { return bottom - top; }
};

// How a plane is cut into bands that stay in the L2 cache.
struct Bands {
  static constexpr int64_t kNumbers = 65536;
  const int64_t height, count;
  explicit Bands(const Shape& s)
      : height(s.h),
        count(std::clamp<int64_t>(s.pixels() / kNumbers, 1, std::max<int64_t>(1, s.h))) {}
  Band operator[](int64_t i) const { return {height * i / count, height * (i + 1) / count}; }
  int64_t most_rows() const { return (height + count - 1) / count; }
};

// A band in one padded row.
template <class S, class T>
class FlatBand {
 public:
  static constexpr int kMany = 4;

  explicit FlatBand(const Shape& shape)
      : s(shape),
        pad(shape.padding()),
        pitch(shape.w + pad),
        bands(shape),
        numbers((bands.most_rows() + 2 * pad) * pitch + 2 * pad + kMany * kLanes<T>, T(0)) {
    for (int i = 0; i < kLanes<T>; ++i) inside[i] = i < s.w ? T(1) : T(0);
  }

  // Loads a band of a plane and the rows around it that its taps see, or zeros in their place.
  void load_band(const S* plane, const Band& band, bool with_neighbours, T mean, T invstd) {
    const Vec<T> mask = bnet::load(inside);
    const int64_t pixels = s.pixels(), around = with_neighbours ? pad : 0;
    const int64_t first = std::max<int64_t>(0, band.top - around);
    const int64_t last = std::min(s.h, band.bottom + around);
    rows = band.rows();
    auto at = [&](int64_t row) { return &numbers[(row - band.top + pad) * pitch + pad]; };
    for (int64_t row = first; row < last; ++row) {
      const S* from = plane + row * s.w;
      T* to = at(row);
      along_row<T>(s.w, pixels - row * s.w, [=](int64_t column, int count) {
        const Vec<T> x = (read<S, T>(from + column, count) - mean) * invstd;
        // A row that is shorter than a vector leaves zeros behind it, not the next row's values.
        store(to + column, s.w < kLanes<T> ? select(mask, x) : x);
      });
    }
    if (bands.count == 1) return;  // what is around a whole plane has always been zero
    for (int64_t row = band.top - pad; row < first; ++row) std::fill_n(at(row), s.w, T(0));
    for (int64_t row = last; row < band.bottom + pad; ++row) std::fill_n(at(row), s.w, T(0));
  }

  // The first value of the padding above, and of the band itself.
  const T* above() const { return numbers.data(); }
  const T* first() const { return &numbers[pad * pitch + pad]; }
  // Values from the band's first to its last.
  int64_t length() const { return (rows - 1) * pitch + s.w; }

  const Shape s;
  const int64_t pad, pitch;
  const Bands bands;

 private:
  // Not a product: what is masked may be infinite.
  static Vec<T> select(Vec<T> mask, Vec<T> x) { return mask > 0 ? x : Vec<T>{}; }

  std::vector<T> numbers;
  T inside[kLanes<T>];
  int64_t rows = 0;
};

// Room for one channel: bands of a feature map and of a gradient, an output, and sums.
template <class S, class T>
struct Scratch {
  FlatBand<S, T> map, grad;
  std::vector<T> output, products, rows;
  std::vector<double> grad_weight;
  explicit Scratch(const Shape& s)
      : map(s),
        grad(s),
        output(map.bands.most_rows() * map.pitch + FlatBand<S, T>::kMany * kLanes<T>),
        products(s.k * s.k * kLanes<T>),
        rows((2 * s.padding() + 1) * width(s)),
        grad_weight(s.k * s.k) {}
  static int64_t width(const Shape& s) { return round_up(s.w, kLanes<T>); }
};

template <int K, class S, class T>
void convolve_band(const FlatBand<S, T>& band, const T* weight, T start, T* output) {
  constexpr int kMany = FlatBand<S, T>::kMany, lanes = kLanes<T>;
  const int k = K ? K : band.s.k;
  const int64_t dilation = band.s.dilation, down = dilation * band.pitch;
  const int64_t length = band.length();
  auto sum_up = [&](int64_t at, auto count) {
    Vec<T> sums[count.value];
    for (auto& v : sums) v = broadcast(start);
    for (int i = 0; i < k; ++i) {
      const T* from = band.above() + at + i * down;
#pragma GCC unroll 7
      for (int j = 0; j < k; ++j) {
        const Vec<T> tap = broadcast(weight[i * k + j]);
        for (int v = 0; v < count.value; ++v)
          sums[v] += load(from + j * dilation + v * lanes) * tap;
      }
    }
    for (int v = 0; v < count.value; ++v) store(output + at + v * lanes, sums[v]);
  };
  int64_t at = 0;
  for (; at + kMany * lanes <= length; at += kMany * lanes)
    sum_up(at, std::integral_constant<int, kMany>{});
  for (; at < length; at += lanes) sum_up(at, std::integral_constant<int, 1>{});
}

template <int K, class S, class T>
void forward_channel(const Shape& s, const Forward<S, T>& f, int64_t c, Scratch<S, T>& scratch) {
  const T mean = f.mean ? f.mean[c] : T(0), invstd = f.invstd ? f.invstd[c] : T(1);
  const int64_t pixels = s.pixels(), pitch = scratch.map.pitch;
  const bool relu = f.relu;
  const Bands& bands = scratch.map.bands;
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * pixels;
    for (int64_t i = 0; i < bands.count; ++i) {
      const Band band = bands[i];
      scratch.map.load_band(f.x + plane, band, true, mean, invstd);
      convolve_band<K>(scratch.map, f.weight + c * s.k * s.k, f.bias[c], scratch.output.data());
      for (int64_t row = band.top; row < band.bottom; ++row) {
        const T* from = &scratch.output[(row - band.top) * pitch];
        S* to = f.y + plane + row * s.w;
        const S* residual = f.residual ? f.residual + plane + row * s.w : nullptr;
        along_row<T>(s.w, pixels - row * s.w, [=](int64_t column, int count) {
          Vec<T> v = load(from + column);
          if (residual) v += read<S, T>(residual + column, count);
          if (relu) v = v < 0 ? Vec<T>{} : v;
          write<S, T>(to + column, v, count);
        });
      }
    }
  }
}

template <int K, class S, class T>
void reduce_channel(const Shape& s, const Backward<S, T>& b, int64_t c, Scratch<S, T>& scratch) {
  // Vectors at a time, so that there are sums enough for the processor to work on side by side.
  constexpr int lanes = kLanes<T>, kAtOnce = K == 1 ? 4 : K == 3 ? 2 : 1;
  const int k = K ? K : s.k, taps = k * k;
  const int64_t pad = s.padding(), pitch = scratch.map.pitch, dilation = s.dilation;
  const int64_t pixels = s.pixels();
  const Bands& bands = scratch.map.bands;
  const int64_t width = Scratch<S, T>::width(s), kept = std::min(s.h, 2 * pad + 1);
  const T* weight = b.weight + c * taps;
  std::vector<T>&sums = scratch.products, &rows = scratch.rows;
  std::vector<double>& grad_weight = scratch.grad_weight;
  std::fill(grad_weight.begin(), grad_weight.end(), 0.0);
  std::fill(rows.begin(), rows.end(), T(0));
  std::fill(sums.begin(), sums.end(), T(0));
  // Rows at the top and at the bottom by themselves, which some taps do not see; all others in one.
  auto kept_row = [=](int64_t row) {
    if (s.h <= kept || row < pad) return row;
    return s.h - 1 - row < pad ? kept - (s.h - row) : pad;
  };
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the feature map
    for (int t = 0; t < taps; ++t) grad_weight[t] += sum<T>(load(&sums[t * lanes]));
    std::fill(sums.begin(), sums.end(), T(0));
    steps = 0;
  };
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * pixels;
    for (int64_t band_index = 0; band_index < bands.count; ++band_index) {
      const Band band = bands[band_index];
      scratch.map.load_band(b.x + plane, band, true, b.mean[c], b.invstd[c]);
      scratch.grad.load_band(b.grad + plane, band, false, T(0), T(1));
      const int64_t length = scratch.grad.length();
      const T* g = scratch.grad.first();
      for (int64_t row = band.top; row < band.bottom; ++row) {
        T* to = &rows[kept_row(row) * width];
        const T* from = g + (row - band.top) * pitch;
        for (int64_t w = 0; w < width; w += lanes) store(to + w, load(to + w) + load(from + w));
      }
      for (int i = 0; i < k; ++i) {
        const T* x = scratch.map.above() + i * dilation * pitch;
        T* to = &sums[i * k * lanes];
        if constexpr (K > 0) {
          Vec<T> products[kAtOnce][K] = {};
          for (int64_t at = 0; at < length; at += kAtOnce * lanes)
            for (int u = 0; u < kAtOnce; ++u) {
              const Vec<T> g_v = load(g + at + u * lanes);
#pragma GCC unroll 7
              for (int j = 0; j < K; ++j)
                products[u][j] += g_v * load(x + at + u * lanes + j * dilation);
            }
          for (int j = 0; j < K; ++j) {
            Vec<T> total = products[0][j];
            for (int u = 1; u < kAtOnce; ++u) total += products[u][j];
            store(to + j * lanes, load(to + j * lanes) + total);
          }
        } else {
          for (int j = 0; j < k; ++j) {
            Vec<T> products = load(to + j * lanes);
            for (int64_t at = 0; at < length; at += lanes)
              products += load(g + at) * load(x + at + j * dilation);
            store(to + j * lanes, products);
          }
        }
      }
      steps += length / lanes;
      if (steps >= 512) flush();
    }
  }
  flush();
  double grad_bias = 0, sum_dy = 0;
  for (int64_t r = 0; r < kept; ++r) {
    const T* from = &rows[r * width];
    // Rows of the kernel that see this row; the middle one stands for all inner rows.
    const int64_t row = s.h <= kept || r <= pad ? r : s.h - (kept - r);
    const Rows valid(s, row);
    double row_sum = 0;
    for (int64_t w = 0; w < s.w; ++w) row_sum += from[w];
    grad_bias += row_sum;
    for (int j = 0; j < k; ++j) {
      const int64_t first = std::clamp<int64_t>(pad - j * dilation, 0, s.w);
      const int64_t last = std::clamp<int64_t>(s.w + pad - j * dilation, first, s.w);
      double seen = row_sum;
      for (int64_t w = 0; w < first; ++w) seen -= from[w];
      for (int64_t w = last; w < s.w; ++w) seen -= from[w];
      for (int i = valid.first; i < valid.last; ++i) sum_dy += weight[i * k + j] * seen;
    }
  }
  for (int t = 0; t < taps; ++t) b.grad_weight[c * taps + t] = T(grad_weight[t]);
  b.grad_bias[c] = T(grad_bias);
  b.sum_dy[c] = T(sum_dy);
}

template <int K, class S, class T>
void input_channel(const Shape& s, const Backward<S, T>& b, int64_t c, Scratch<S, T>& scratch,
                   T mean_dy, T mean_dy_xmu, bool frozen) {
  const int taps = s.k * s.k;
  const int64_t pixels = s.pixels(), pitch = scratch.grad.pitch;
  const Bands& bands = scratch.grad.bands;
  T* flipped = scratch.products.data();
  for (int t = 0; t < taps; ++t) flipped[t] = b.weight[c * taps + taps - 1 - t];
  const T mean = frozen ? T(0) : b.mean[c], invstd = b.invstd[c];
  const T constant = mean_dy * invstd, slope = mean_dy_xmu * invstd * invstd;
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * pixels;
    for (int64_t i = 0; i < bands.count; ++i) {
      const Band band = bands[i];
      scratch.grad.load_band(b.grad + plane, band, true, T(0), T(1));
      convolve_band<K>(scratch.grad, flipped, T(0), scratch.output.data());
      for (int64_t row = band.top; row < band.bottom; ++row) {
        const T* from = &scratch.output[(row - band.top) * pitch];
        S* to = b.grad_x + plane + row * s.w;
        const S* x = frozen ? nullptr : b.x + plane + row * s.w;
        along_row<T>(s.w, pixels - row * s.w, [=](int64_t column, int count) {
          Vec<T> v = load(from + column) * invstd;
          if (x) v -= constant + (read<S, T>(x + column, count) - mean) * slope;
          write<S, T>(to + column, v, count);
        });
      }
    }
  }
}

// Sum of `count` contiguous values, or of their squared distances from `mean`.
template <bool squares, class S, class T>
inline double sum_contiguous(const S* x, int64_t count, T mean) {
  constexpr int lanes = kLanes<T>;
  double total = 0;
  for (int64_t start = 0; start < count;) {
    // Chunks, so that rounding does not grow with the feature map.
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
void statistics_channel(const Shape& s, const S* x, int64_t c, T* mean, T* var) {
  const double count = double(s.n) * s.pixels();
  double total = 0, squares = 0;
  // Distances from one of the values: what all have in common is not rounded in the sum.
  const T pivot = to_number(x[c * s.pixels()]);
  for (int64_t n = 0; n < s.n; ++n)
    total += sum_contiguous<false, S, T>(x + (n * s.c + c) * s.pixels(), s.pixels(), pivot);
  mean[c] = T(pivot + total / count);
  for (int64_t n = 0; n < s.n; ++n)
    squares += sum_contiguous<true, S, T>(x + (n * s.c + c) * s.pixels(), s.pixels(), mean[c]);
  var[c] = T(squares / count);
}

}  // namespace bnet
