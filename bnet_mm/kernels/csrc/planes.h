// One channel of contiguous feature maps: a plane, or a band of its rows, is copied, converted,
// normalized and padded with zeros, and vectors run along its rows.
//
// Several rows are computed at once: what is loaded of one of them serves the taps of all.
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

// Rows, and vectors of a row, that are computed at once.
constexpr int kRows = kVectorBytes == 64 ? 4 : 2;
constexpr int kColumnVectors = 2;

// A band with its padding. Its rows start with a vector, and so far from one another that there are
// zeros enough between them for the right padding of one and the left one of the next.
template <class S, class T>
class PaddedBand {
 public:
  explicit PaddedBand(const Shape& shape)
      : s(shape),
        pad(shape.padding()),
        pitch(round_up(shape.w + pad, kLanes<T>)),
        bands(shape),
        numbers((round_up(bands.most_rows(), kRows) + 2 * pad) * pitch + lead() +
                (kColumnVectors + 1) * kLanes<T> + 2 * pad) {
    for (int i = 0; i < kLanes<T>; ++i) inside[i] = i < s.w ? T(1) : T(0);
  }

  // Loads a band of a plane and the rows around it that its taps see, or zeros in their place.
  void load_band(const S* plane, const Band& band, bool with_neighbours, T mean, T invstd) {
    const Vec<T> mask = bnet::load(inside);
    const int64_t pixels = s.pixels(), around = with_neighbours ? pad : 0;
    const int64_t first = std::max<int64_t>(0, band.top - around);
    const int64_t last = std::min(s.h, band.bottom + around);
    auto at = [&](int64_t row) { return &numbers[(row - band.top + pad) * pitch + lead()]; };
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
    const int64_t end = band.top + round_up(band.rows(), kRows) + pad;
    for (int64_t row = band.top - pad; row < first; ++row) std::fill_n(at(row), s.w, T(0));
    for (int64_t row = last; row < end; ++row) std::fill_n(at(row), s.w, T(0));
  }

  // The first value of the padding above and left of the band, and of the band itself.
  const T* above() const { return &numbers[lead() - pad]; }
  const T* first() const { return &numbers[pad * pitch + lead()]; }

  const Shape s;
  const int64_t pad, pitch;
  const Bands bands;

 private:
  int64_t lead() const { return round_up(pad, kLanes<T>); }
  // Not a product: what is masked may be infinite.
  static Vec<T> select(Vec<T> mask, Vec<T> x) { return mask > 0 ? x : Vec<T>{}; }

  Buffer<T> numbers;
  T inside[kLanes<T>];
};

// Calls `run(row, column, count)` for blocks of `kRows` rows of a band by `count` vectors, which is
// a constant: 2, or 1 at the end of a row. The last ones may reach beyond the band.
template <class T, class Run>
inline void for_row_blocks(const Band& band, int64_t width, Run run) {
  constexpr int lanes = kLanes<T>;
  for (int64_t row = 0; row < band.rows(); row += kRows) {
    int64_t column = 0;
    for (; column + lanes < width; column += kColumnVectors * lanes)
      run(row, column, std::integral_constant<int, kColumnVectors>{});
    if (column < width) run(row, column, std::integral_constant<int, 1>{});
  }
}

// Room for one channel: bands of a feature map and of a gradient, an output, and sums.
template <class S, class T>
struct Scratch {
  PaddedBand<S, T> map, grad;
  Buffer<T> output, products;
  std::vector<T> rows;
  std::vector<double> grad_weight;
  explicit Scratch(const Shape& s)
      : map(s),
        grad(s),
        output((round_up(map.bands.most_rows(), kRows) * map.pitch +
                (kColumnVectors + 1) * kLanes<T>)),
        products(s.k * s.k * kLanes<T>),
        rows((2 * s.padding() + 1) * width(s)),
        grad_weight(s.k * s.k) {}
  static int64_t width(const Shape& s) { return round_up(s.w, kLanes<T>); }
};

// Adds all taps of a block of `kRows` rows by V vectors to its sums. `from` is where the first tap
// of its first pixel is; each vector is loaded once for the taps of a column.
template <int K, int V, class T>
inline void add_all_taps(const T* from, int64_t pitch, const T* weight, Vec<T> (&sums)[kRows][V]) {
  for (int j = 0; j < K; ++j, ++from) {
    Vec<T> taps[K > 0 ? K : 1];
    for (int i = 0; i < K; ++i) taps[i] = broadcast(weight[i * K + j]);
    const T* x_row = from;
#pragma GCC unroll 10
    for (int q = 0; q < kRows + K - 1; ++q, x_row += pitch)
      for (int v = 0; v < V; ++v) {
        const Vec<T> x = load(x_row + v * kLanes<T>);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          if (q - r >= 0 && q - r < K) sums[r][v] += x * taps[q - r];
      }
  }
}

// Convolves a band, whose taps are next to one another.
template <int K, class S, class T>
void convolve_band(const PaddedBand<S, T>& padded, const Band& band, const T* weight, T start,
                   T* output) {
  constexpr int lanes = kLanes<T>;
  const int64_t pitch = padded.pitch;
  const T* const above = padded.above();
  for_row_blocks<T>(band, padded.s.w, [=](int64_t row, int64_t column, auto count) {
    constexpr int vectors = count.value;
    Vec<T> sums[kRows][vectors];
    for (auto& of_row : sums)
      for (auto& v : of_row) v = broadcast(start);
    add_all_taps<K, vectors>(above + row * pitch + column, pitch, weight, sums);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < vectors; ++v)
        store(output + (row + r) * pitch + column + v * lanes, sums[r][v]);
  });
}

// The same for any kernel size and dilation.
template <class S, class T>
void convolve_band_of_any(const PaddedBand<S, T>& padded, const Band& band, const T* weight,
                          T start, T* output) {
  constexpr int lanes = kLanes<T>;
  const int64_t pitch = padded.pitch, dilation = padded.s.dilation;
  const int k = padded.s.k;
  for (int64_t row = 0; row < band.rows(); ++row)
    for (int64_t column = 0; column < padded.s.w; column += lanes) {
      const T* from = padded.above() + row * pitch + column;
      Vec<T> sums = broadcast(start);
      for (int i = 0; i < k; ++i)
        for (int j = 0; j < k; ++j)
          sums += load(from + i * dilation * pitch + j * dilation) * broadcast(weight[i * k + j]);
      store(output + row * pitch + column, sums);
    }
}

// Adds to `products`, K x K vectors, columns of the kernel first, those of a block of gradients.
template <int K, int V, class T>
inline void add_all_products(const T* from, int64_t pitch, const Vec<T> (&g)[kRows][V],
                             T* products) {
  for (int j = 0; j < K; ++j, ++from) {
    Vec<T> sums[V][K > 0 ? K : 1] = {};
    const T* x_row = from;
#pragma GCC unroll 10
    for (int q = 0; q < kRows + K - 1; ++q, x_row += pitch)
      for (int v = 0; v < V; ++v) {
        const Vec<T> x = load(x_row + v * kLanes<T>);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
          if (q - r >= 0 && q - r < K) sums[v][q - r] += x * g[r][v];
      }
    for (int i = 0; i < K; ++i, products += kLanes<T>) {
      Vec<T> total = load(products);
      for (int v = 0; v < V; ++v) total += sums[v][i];
      store(products, total);
    }
  }
}

// Adds the products of a band's gradient and feature map, for each tap, to `products`.
template <int K, class S, class T>
void multiply_bands(const PaddedBand<S, T>& map, const PaddedBand<S, T>& grad, const Band& band,
                    T* products) {
  constexpr int lanes = kLanes<T>;
  const int64_t pitch = map.pitch;
  const T *const above = map.above(), *const first = grad.first();
  for_row_blocks<T>(band, map.s.w, [=](int64_t row, int64_t column, auto count) {
    constexpr int vectors = count.value;
    const int64_t at = row * pitch + column;
    Vec<T> g[kRows][vectors];
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < vectors; ++v) g[r][v] = load(first + at + r * pitch + v * lanes);
    add_all_products<K, vectors>(above + at, pitch, g, products);
  });
}

// The same for any kernel size and dilation.
template <class S, class T>
void multiply_bands_of_any(const PaddedBand<S, T>& map, const PaddedBand<S, T>& grad,
                           const Band& band, T* products) {
  constexpr int lanes = kLanes<T>;
  const int64_t pitch = map.pitch, dilation = map.s.dilation;
  for (int j = 0; j < map.s.k; ++j)
    for (int i = 0; i < map.s.k; ++i, products += lanes) {
      const T* x = map.above() + i * dilation * pitch + j * dilation;
      Vec<T> total = load(products);
      for (int64_t row = 0; row < band.rows(); ++row)
        for (int64_t column = 0; column < map.s.w; column += lanes)
          total += load(x + row * pitch + column) * load(grad.first() + row * pitch + column);
      store(products, total);
    }
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
      const T* weight = f.weight + c * s.k * s.k;
      if (K > 0 && s.dilation == 1)
        convolve_band<K>(scratch.map, band, weight, f.bias[c], scratch.output.data());
      else
        convolve_band_of_any(scratch.map, band, weight, f.bias[c], scratch.output.data());
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
  constexpr int lanes = kLanes<T>;
  const int k = K ? K : s.k, taps = k * k;
  const int64_t pad = s.padding(), pitch = scratch.map.pitch;
  const int64_t pixels = s.pixels();
  const Bands& bands = scratch.map.bands;
  const int64_t width = Scratch<S, T>::width(s), kept = std::min(s.h, 2 * pad + 1);
  const T* weight = b.weight + c * taps;
  Buffer<T>& products = scratch.products;
  std::vector<T>& rows = scratch.rows;
  std::vector<double>& grad_weight = scratch.grad_weight;
  std::fill(grad_weight.begin(), grad_weight.end(), 0.0);
  std::fill(rows.begin(), rows.end(), T(0));
  products.fill(T(0));
  // Rows at the top and at the bottom by themselves, which some taps do not see; all others in one.
  auto kept_row = [=](int64_t row) {
    if (s.h <= kept || row < pad) return row;
    return s.h - 1 - row < pad ? kept - (s.h - row) : pad;
  };
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the feature map
    for (int i = 0; i < k; ++i)
      for (int j = 0; j < k; ++j)
        grad_weight[i * k + j] += sum<T>(load(&products[(j * k + i) * lanes]));
    products.fill(T(0));
    steps = 0;
  };
  for (int64_t n = 0; n < s.n; ++n) {
    const int64_t plane = (n * s.c + c) * pixels;
    for (int64_t band_index = 0; band_index < bands.count; ++band_index) {
      const Band band = bands[band_index];
      scratch.map.load_band(b.x + plane, band, true, b.mean[c], b.invstd[c]);
      scratch.grad.load_band(b.grad + plane, band, false, T(0), T(1));
      const T* g = scratch.grad.first();
      for (int64_t row = band.top; row < band.bottom; ++row) {
        T* to = &rows[kept_row(row) * width];
        const T* from = g + (row - band.top) * pitch;
        for (int64_t w = 0; w < width; w += lanes) store(to + w, load(to + w) + load(from + w));
      }
      if (K > 0 && s.dilation == 1)
        multiply_bands<K>(scratch.map, scratch.grad, band, products.data());
      else
        multiply_bands_of_any(scratch.map, scratch.grad, band, products.data());
      steps += band.rows() * width / lanes;
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
      const int64_t first = std::clamp<int64_t>(pad - j * s.dilation, 0, s.w);
      const int64_t last = std::clamp<int64_t>(s.w + pad - j * s.dilation, first, s.w);
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
      if (K > 0 && s.dilation == 1)
        convolve_band<K>(scratch.grad, band, flipped, T(0), scratch.output.data());
      else
        convolve_band_of_any(scratch.grad, band, flipped, T(0), scratch.output.data());
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

}  // namespace bnet
