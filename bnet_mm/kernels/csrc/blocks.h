// One block of channels of a part of a feature map: vectors run along the channels.
//
// For channels_last feature maps. The block goes through a ring of converted, normalized and padded
// rows, in which its channels lie side by side, pixel by pixel: read in place, pixels that are a
// power of two apart would throw each other out of the cache.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"

namespace bnet {

constexpr int kBlockBytes = 256;

// Channels of a block.
template <class T>
constexpr int kBlock = kBlockBytes / sizeof(T);
template <class T>
constexpr int kBlockVectors = kBlock<T> / kLanes<T>;

// Neighbouring pixels whose sums are kept in registers.
constexpr int kPixels = 8;

// How many pixels ahead memory is prefetched: neighbouring pixels are too far from one another for
// the processor to guess.
constexpr int kAhead = 16;

// A part of the work: `channels` channels from `channel` on, rows [top, bottom) and columns
// [left, right) of image n.
struct Part {
  int64_t n, top, bottom, left, right, channel;
  int channels;
};

// Where a channel of a pixel is.
inline int64_t position(const Shape& s, int64_t n, int64_t row, int64_t column, int64_t channel) {
  return ((n * s.h + row) * s.w + column) * s.c + channel;
}

// How many values the `vector`-th vector of a part's block has.
template <class T>
inline int numbers_of(const Part& part, int vector) {
  return std::clamp(part.channels - vector * kLanes<T>, 0, kLanes<T>);
}

// How many vectors of a part's block have values: a narrow feature map fills only some.
template <class T>
inline int vectors_of(const Part& part) {
  return (part.channels + kLanes<T> - 1) / kLanes<T>;
}

// One value per channel of a block, and zeros (or `other`) where the part has fewer channels.
template <class T>
struct PerChannel {
  Vec<T> vectors[kBlockVectors<T>];

  PerChannel() : vectors{} {}
  PerChannel(const T* values, const Part& part, T other) {
    for (int v = 0; v < kBlockVectors<T>; ++v) {
      T numbers[kLanes<T>];
      for (int i = 0; i < kLanes<T>; ++i)
        numbers[i] =
            values && i < numbers_of<T>(part, v) ? values[part.channel + v * kLanes<T> + i] : other;
      vectors[v] = load(numbers);
    }
  }
};

// Prefetches a block's channels of a pixel while the taps are added up.
template <class T, class S>
inline void fetch(const S* from) {
  for (int i = 0; i < kBlock<T>; i += 64 / int(sizeof(S))) __builtin_prefetch(from + i);
}

template <class S, class T>
class BlockRing {
 public:
  // `width`: the most columns that a part has.
  BlockRing(const Shape& shape, int64_t width)
      : s(shape),
        pad(shape.padding()),
        rows(2 * pad + 1),
        stride((round_up(width, kPixels) + 2 * pad) * kBlock<T>),
        numbers(rows * stride) {}

  void begin(const S* map_, const Part& part_, const T* mean, const T* invstd) {
    map = map_;
    part = part_;
    loaded = std::max<int64_t>(0, part.top - pad);
    normalize = mean != nullptr;
    means = PerChannel<T>(mean, part, 0);
    invstds = PerChannel<T>(invstd, part, 1);
    std::fill(numbers.begin(), numbers.end(), T(0));
  }

  // Loads what is missing up to `row`, as far as the feature map has rows.
  void load_until(int64_t row) {
    const int64_t first = std::max<int64_t>(0, part.left - pad);
    const int64_t last = std::min<int64_t>(s.w, part.right + pad);
    const Part p = part;  // a copy, which no store can be suspected of changing
    const int vectors = vectors_of<T>(p);
    for (; loaded <= row && loaded < s.h; ++loaded) {
      T* to = &numbers[loaded % rows * stride + (first - part.left + pad) * kBlock<T>];
      const S* from = map + position(s, part.n, loaded, first, part.channel);
      for (int64_t w = first; w < last; ++w, from += s.c, to += kBlock<T>) {
        fetch<T>(from + kAhead * s.c);
        for (int v = 0; v < vectors; ++v) {
          Vec<T> x = read<S, T>(from + v * kLanes<T>, numbers_of<T>(p, v));
          if (normalize) x = (x - means.vectors[v]) * invstds.vectors[v];
          store(to + v * kLanes<T>, x);
        }
      }
    }
  }

  // The first value of a row, `padding` columns left of the part.
  const T* row(int64_t index) const { return &numbers[index % rows * stride]; }

 private:
  const Shape s;
  const int64_t pad, rows, stride;
  std::vector<T> numbers;
  const S* map = nullptr;
  Part part{};
  PerChannel<T> means, invstds;
  bool normalize = false;
  int64_t loaded = 0;
};

// The kernels of a block's channels side by side: [tap][channel].
template <class T>
std::vector<T> block_weights(const Shape& s, const T* weight, const Part& part, bool flipped) {
  const int taps = s.k * s.k;
  std::vector<T> block(taps * kBlock<T>, T(0));
  for (int i = 0; i < part.channels; ++i)
    for (int t = 0; t < taps; ++t)
      block[t * kBlock<T> + i] = weight[(part.channel + i) * taps + (flipped ? taps - 1 - t : t)];
  return block;
}

// Calls `prepare(column)` and later `finish(column, vector, sums)` for each pixel of a part's row
// of output.
template <int K, class T, class Ring, class Prepare, class Finish>
inline void convolve_block_row(const Shape& s, const Part& part, const Ring& ring, const T* weight,
                               const PerChannel<T>& start, int64_t row, Prepare prepare,
                               Finish finish) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const int k = K ? K : s.k, vectors = vectors_of<T>(part);
  const Rows valid(s, row);
  for (int64_t column = part.left; column < part.right; column += kPixels) {
    const int pixels = int(std::min<int64_t>(kPixels, part.right - column));
    for (int p = 0; p < pixels; ++p) prepare(column + p);
    Vec<T> sums[kBlockVectors<T>][kPixels];
    for (int vector = 0; vector < vectors; ++vector) {
      Vec<T> block_sums[kPixels];
      for (auto& v : block_sums) v = start.vectors[vector];
      for (int i = valid.first; i < valid.last; ++i) {
        const T* from = ring.row(row + int64_t(i) * s.dilation - s.padding()) +
                        (column - part.left) * block + vector * lanes;
        const T* tap = weight + i * k * block + vector * lanes;
#pragma GCC unroll 7
        for (int j = 0; j < k; ++j) {
          const Vec<T> tap_v = load(tap + j * block);
          const T* x = from + int64_t(j) * s.dilation * block;
          for (int p = 0; p < kPixels; ++p) block_sums[p] += load(x + p * block) * tap_v;
        }
      }
      std::copy(block_sums, block_sums + kPixels, sums[vector]);
    }
    // Pixel by pixel: neighbours in memory are written one after the other.
    for (int p = 0; p < pixels; ++p)
      for (int vector = 0; vector < vectors; ++vector) finish(column + p, vector, sums[vector][p]);
  }
}

template <int K, class S, class T>
void forward_part(const Shape& s, const Forward<S, T>& f, const Part& part, BlockRing<S, T>& ring) {
  const int64_t step = s.c;
  const Part p = part;
  const bool full = part.channels == kBlock<T>;
  const std::vector<T> weight = block_weights(s, f.weight, part, false);
  const PerChannel<T> bias(f.bias, part, 0);
  ring.begin(f.x, part, f.mean, f.invstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = position(s, part.n, row, 0, part.channel);
    S* const y = f.y + start;
    const S* const residual = f.residual ? f.residual + start : nullptr;
    const bool relu = f.relu;
    convolve_block_row<K>(
        s, part, ring, weight.data(), bias, row,
        [=](int64_t column) {
          if (residual) fetch<T>(residual + column * step);
        },
        [=](int64_t column, int vector, Vec<T> v) {
          const int numbers = full ? kLanes<T> : numbers_of<T>(p, vector);
          const int64_t at = column * step + vector * kLanes<T>;
          if (residual) v += read<S, T>(residual + at, numbers);
          if (relu) v = v < 0 ? Vec<T>{} : v;
          write<S, T>(y + at, v, numbers);
        });
  }
}

template <int K, class S, class T>
void input_part(const Shape& s, const Backward<S, T>& b, const Part& part, BlockRing<S, T>& ring,
                bool frozen) {
  const int64_t step = s.c;
  const Part p = part;
  const bool full = part.channels == kBlock<T>;
  const std::vector<T> weight = block_weights(s, b.weight, part, true);
  const PerChannel<T> zeros, mean(b.mean, part, 0), invstd(b.invstd, part, 0);
  PerChannel<T> constant(b.mean_dy, part, 0), slope(b.mean_dy_xmu, part, 0);
  for (int i = 0; i < kBlockVectors<T>; ++i) {
    constant.vectors[i] *= invstd.vectors[i];
    slope.vectors[i] *= invstd.vectors[i] * invstd.vectors[i];
  }
  ring.begin(b.grad, part, nullptr, nullptr);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = position(s, part.n, row, 0, part.channel);
    S* const grad_x = b.grad_x + start;
    const S* const x = frozen ? nullptr : b.x + start;
    convolve_block_row<K>(
        s, part, ring, weight.data(), zeros, row,
        [=](int64_t column) {
          if (x) fetch<T>(x + column * step);
        },
        [=](int64_t column, int i, Vec<T> v) {
          const int numbers = full ? kLanes<T> : numbers_of<T>(p, i);
          const int64_t at = column * step + i * kLanes<T>;
          v *= invstd.vectors[i];
          if (x) {
            const Vec<T> x_v = read<S, T>(x + at, numbers);
            v -= constant.vectors[i] + (x_v - mean.vectors[i]) * slope.vectors[i];
          }
          write<S, T>(grad_x + at, v, numbers);
        });
  }
}

// Sums of a block's channels over some parts: the gradients of kernel and bias, and the sum of the
// output's gradient over the pixels whose tap falls inside the feature map, for each tap.
template <class T>
struct BlockSums {
  std::vector<double> grad_weight, seen, grad_bias;
  explicit BlockSums(int k)
      : grad_weight(k * k * kBlock<T>, 0), seen(k * k * kBlock<T>, 0), grad_bias(kBlock<T>, 0) {}
};

template <int K, class S, class T>
void reduce_part(const Shape& s, const Backward<S, T>& b, const Part& part, BlockRing<S, T>& ring,
                 BlockSums<T>& total) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const int k = K ? K : s.k;
  const int64_t pad = s.padding(), width = part.right - part.left;
  std::vector<T> grad(width * block), sums(k * k * block, T(0)), in_row(k * block);
  std::vector<T> whole_rows(k * block, T(0));
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the feature map
    for (int t = 0; t < k * k * block; ++t) total.grad_weight[t] += sums[t];
    for (int i = 0; i < k; ++i)
      for (int t = 0; t < k * block; ++t) total.seen[i * k * block + t] += whole_rows[t];
    std::fill(sums.begin(), sums.end(), T(0));
    std::fill(whole_rows.begin(), whole_rows.end(), T(0));
    steps = 0;
  };
  ring.begin(b.x, part, b.mean, b.invstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + pad);
    const S* from = b.grad + position(s, part.n, row, part.left, part.channel);
    PerChannel<T> row_sums;
    for (int64_t w = 0; w < width; ++w, from += s.c)
      for (int v = 0; v < kBlockVectors<T>; ++v) {
        const Vec<T> g = read<S, T>(from + v * lanes, numbers_of<T>(part, v));
        store(&grad[w * block + v * lanes], g);
        row_sums.vectors[v] += g;
      }
    T row_sum[block];
    for (int v = 0; v < kBlockVectors<T>; ++v) store(row_sum + v * lanes, row_sums.vectors[v]);
    for (int i = 0; i < block; ++i) total.grad_bias[i] += row_sum[i];
    // The sum of this row for each column of the kernel: without the taps that fall outside.
    for (int j = 0; j < k; ++j) {
      const int64_t shift = pad - int64_t(j) * s.dilation;
      const int64_t first = std::clamp<int64_t>(shift - part.left, 0, width);
      const int64_t last = std::clamp<int64_t>(s.w + shift - part.left, first, width);
      T* seen = &in_row[j * block];
      std::copy(row_sum, row_sum + block, seen);
      for (int64_t w = 0; w < first; ++w)
        for (int i = 0; i < block; ++i) seen[i] -= grad[w * block + i];
      for (int64_t w = last; w < width; ++w)
        for (int i = 0; i < block; ++i) seen[i] -= grad[w * block + i];
    }
    const Rows valid(s, row);
    if (valid.first == 0 && valid.last == k) {
      for (int t = 0; t < k * block; ++t) whole_rows[t] += in_row[t];
    } else {
      for (int i = valid.first; i < valid.last; ++i)
        for (int t = 0; t < k * block; ++t) total.seen[i * k * block + t] += in_row[t];
    }
    for (int i = valid.first; i < valid.last; ++i) {
      const T* x_row = ring.row(row + int64_t(i) * s.dilation - pad);
      // Vectors at a time, so that there are sums enough for the processor to work on side by side.
      constexpr int kAtOnce = K == 1 || K == 3 ? kBlockVectors<T> : 1;
      for (int vector = 0; vector < kBlockVectors<T>; vector += kAtOnce) {
        const T* x = x_row + vector * lanes;
        const T* g = grad.data() + vector * lanes;
        T* to = &sums[i * k * block + vector * lanes];
        if constexpr (K > 0) {
          Vec<T> products[kAtOnce][K] = {};
          for (int64_t w = 0; w < width; ++w)
            for (int u = 0; u < kAtOnce; ++u) {
              const Vec<T> g_v = load(g + w * block + u * lanes);
#pragma GCC unroll 7
              for (int j = 0; j < K; ++j)
                products[u][j] += g_v * load(x + (w + int64_t(j) * s.dilation) * block + u * lanes);
            }
          for (int u = 0; u < kAtOnce; ++u)
            for (int j = 0; j < K; ++j) {
              T* at = to + j * block + u * lanes;
              store(at, load(at) + products[u][j]);
            }
        } else {
          for (int j = 0; j < k; ++j) {
            Vec<T> products = load(to + j * block);
            for (int64_t w = 0; w < width; ++w)
              products += load(g + w * block) * load(x + (w + int64_t(j) * s.dilation) * block);
            store(to + j * block, products);
          }
        }
      }
    }
    steps += width;
    if (steps >= 512) flush();
  }
  flush();
}

// Mean, and sum of squared distances from it, of each channel of a channels_last feature map over
// pixels [first, last).
template <class S, class T>
void statistics_pixels(const Shape& s, const S* x, int64_t first, int64_t last, double* mean,
                       double* squares) {
  constexpr int lanes = kLanes<T>;
  // Pixels of a tile, which is read twice and has to stay in the cache for that.
  const int64_t tile = std::clamp<int64_t>(32768 / s.c, 8, 64);
  const int64_t width = round_up(s.c, lanes);
  std::fill(mean, mean + s.c, 0.0);
  std::fill(squares, squares + s.c, 0.0);
  std::vector<T> pivots(width), means(width), distances(width);
  auto numbers_at = [&](int64_t c) { return int(std::min<int64_t>(lanes, s.c - c)); };
  for (int64_t start = first; start < last; start += tile) {
    const int64_t end = std::min(last, start + tile);
    std::fill(means.begin(), means.end(), T(0));
    std::fill(distances.begin(), distances.end(), T(0));
    // Distances from the first pixel: what all have in common is not rounded in the sum.
    for (int64_t c = 0; c < s.c; c += lanes)
      store(&pivots[c], read<S, T>(x + start * s.c + c, numbers_at(c)));
    for (int64_t p = start; p < end; ++p)
      for (int64_t c = 0; c < s.c; c += lanes)
        store(&means[c],
              load(&means[c]) + (read<S, T>(x + p * s.c + c, numbers_at(c)) - load(&pivots[c])));
    const T pixels = T(end - start);
    for (int64_t c = 0; c < width; c += lanes) store(&means[c], load(&means[c]) / pixels);
    for (int64_t p = start; p < end; ++p)
      for (int64_t c = 0; c < s.c; c += lanes) {
        const Vec<T> from_pivot = read<S, T>(x + p * s.c + c, numbers_at(c)) - load(&pivots[c]);
        const Vec<T> distance = from_pivot - load(&means[c]);
        store(&distances[c], load(&distances[c]) + distance * distance);
      }
    // Chan's formula: tiles are joined by their means, raw squares would cancel.
    const double share = double(end - start) / double(end - first);
    const double weight = share * double(start - first);
    for (int64_t c = 0; c < s.c; ++c) {
      const double delta = double(pivots[c]) + double(means[c]) - mean[c];
      mean[c] += delta * share;
      squares[c] += distances[c] + delta * delta * weight;
    }
  }
}

}  // namespace bnet
