// One block of channels of a part of a map: vectors run along the channels.
//
// For channels_last maps, and for contiguous ones whose rows are shorter than a vector. The block
// goes through a ring of converted, normalized and padded rows, in which its channels lie
// side by side, pixel by pixel: read in place, pixels that are a power of two apart would throw each
// other out of the cache.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "layer.h"

namespace bnet {

constexpr int kBlockBytes = 128;

// Channels of a block.
template <class T>
constexpr int kBlock = kBlockBytes / sizeof(T);
template <class T>
constexpr int kBlockVectors = kBlock<T> / kLanes<T>;

// Neighbouring pixels whose sums are kept in registers.
constexpr int kPixels = 8;

// A part of the work: `channels` channels from `channel` on, rows [top, bottom) and columns
// [left, right) of map n.
struct Part {
  int64_t n, top, bottom, left, right, channel;
  int channels;
};

// Where a map's numbers are: channels_last ones side by side, contiguous ones a plane apart.
template <bool channels_last>
struct Layout {
  const Shape s;
  int64_t at(int64_t n, int64_t row, int64_t column, int64_t channel) const {
    const int64_t pixel = row * s.w + column;
    return n * s.c * s.pixels() + (channels_last ? pixel * s.c + channel
                                                 : channel * s.pixels() + pixel);
  }
  int64_t channel_stride() const { return channels_last ? 1 : s.pixels(); }
  int64_t pixel_stride() const { return channels_last ? s.c : 1; }
};

// Up to a vector of channels of one pixel, from where they are.
template <bool channels_last, class S, class T>
inline Vec<T> read_channels(const S* from, int64_t stride, int numbers) {
  if constexpr (channels_last) {
    return read<S, T>(from, numbers);
  } else {
    T values[kLanes<T>] = {};
    if (numbers == kLanes<T>) {
      for (int i = 0; i < kLanes<T>; ++i) values[i] = to_number(from[i * stride]);
    } else {
      for (int i = 0; i < numbers; ++i) values[i] = to_number(from[i * stride]);
    }
    return load(values);
  }
}

template <bool channels_last, class S, class T>
inline void write_channels(S* to, int64_t stride, Vec<T> v, int numbers) {
  if constexpr (channels_last) {
    write<S, T>(to, v, numbers);
  } else {
    T values[kLanes<T>];
    store(values, v);
    if (numbers == kLanes<T>) {
      for (int i = 0; i < kLanes<T>; ++i) from_number(values[i], to + i * stride);
    } else {
      for (int i = 0; i < numbers; ++i) from_number(values[i], to + i * stride);
    }
  }
}

// Numbers that the `vector`-th vector of a part's block has.
template <class T>
inline int numbers_of(const Part& part, int vector) {
  return std::clamp(part.channels - vector * kLanes<T>, 0, kLanes<T>);
}

// One number per channel of a block, and zeros (or `other`) where the part has fewer channels.
template <class T>
struct PerChannel {
  Vec<T> vectors[kBlockVectors<T>];

  PerChannel() : vectors{} {}
  PerChannel(const T* values, const Part& part, T other) {
    for (int v = 0; v < kBlockVectors<T>; ++v) {
      T numbers[kLanes<T>];
      for (int i = 0; i < kLanes<T>; ++i)
        numbers[i] = values && i < numbers_of<T>(part, v)
                         ? values[part.channel + v * kLanes<T> + i] : other;
      vectors[v] = load(numbers);
    }
  }
};

// Asks for a block's channels of a pixel, which come from memory while its taps are added up.
template <class S>
inline void fetch(const S* from) {
  __builtin_prefetch(from);
  __builtin_prefetch(reinterpret_cast<const char*>(from) + 64);
}

template <bool channels_last, class S, class T>
class BlockRing {
 public:
  // `width`: the most columns that a part has.
  BlockRing(const Shape& shape, int64_t width)
      : layout{shape},
        pad(shape.padding()),
        rows(2 * pad + 1),
        stride((round_up(width, kPixels) + 2 * pad) * kBlock<T>),
        numbers(rows * stride) {}

  void begin(const S* map_, const Part& part_, const T* mean, const T* rstd) {
    map = map_;
    part = part_;
    loaded = std::max<int64_t>(0, part.top - pad);
    normalize = mean != nullptr;
    means = PerChannel<T>(mean, part, 0);
    rstds = PerChannel<T>(rstd, part, 1);
    std::fill(numbers.begin(), numbers.end(), T(0));
  }

  // Loads what is missing up to `row`, as far as the map has rows.
  void load_until(int64_t row) {
    const Shape& s = layout.s;
    const int64_t first = std::max<int64_t>(0, part.left - pad);
    const int64_t last = std::min<int64_t>(s.w, part.right + pad);
    const int64_t step = layout.pixel_stride(), channel_stride = layout.channel_stride();
    const Part p = part;  // a copy, which no store can be suspected of changing
    for (; loaded <= row && loaded < s.h; ++loaded) {
      T* to = &numbers[loaded % rows * stride + (first - part.left + pad) * kBlock<T>];
      const S* from = map + layout.at(part.n, loaded, first, part.channel);
      for (int64_t w = first; w < last; ++w, from += step, to += kBlock<T>)
        for (int v = 0; v < kBlockVectors<T>; ++v) {
          Vec<T> x = read_channels<channels_last, S, T>(from + v * kLanes<T> * channel_stride,
                                                        channel_stride, numbers_of<T>(p, v));
          if (normalize) x = (x - means.vectors[v]) * rstds.vectors[v];
          store(to + v * kLanes<T>, x);
        }
    }
  }

  // The first number of a row, `padding` columns left of the part.
  const T* row(int64_t index) const { return &numbers[index % rows * stride]; }

 private:
  const Layout<channels_last> layout;
  const int64_t pad, rows, stride;
  std::vector<T> numbers;
  const S* map = nullptr;
  Part part{};
  PerChannel<T> means, rstds;
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
      block[t * kBlock<T> + i] =
          weight[(part.channel + i) * taps + (flipped ? taps - 1 - t : t)];
  return block;
}

// Calls `prepare(column)` and later `finish(column, vector, sums)` for each pixel of a part's row of output.
template <int K, class T, class Ring, class Prepare, class Finish>
inline void convolve_block_row(const Shape& s, const Part& part, const Ring& ring, const T* weight,
                               const PerChannel<T>& start, int64_t row, Prepare prepare,
                               Finish finish) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const int k = K ? K : s.k;
  const Rows valid(s, row);
  for (int64_t column = part.left; column < part.right; column += kPixels) {
    const int pixels = int(std::min<int64_t>(kPixels, part.right - column));
    for (int p = 0; p < pixels; ++p) prepare(column + p);
    Vec<T> sums[kBlockVectors<T>][kPixels];
    for (int vector = 0; vector < kBlockVectors<T>; ++vector) {
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
    // Pixel by pixel, so that what lies side by side is written so.
    for (int p = 0; p < pixels; ++p)
      for (int vector = 0; vector < kBlockVectors<T>; ++vector)
        finish(column + p, vector, sums[vector][p]);
  }
}

template <int K, bool channels_last, class S, class T>
void forward_part(const Shape& s, const Forward<S, T>& f, const Part& part,
                  BlockRing<channels_last, S, T>& ring) {
  const Layout<channels_last> layout{s};
  const int64_t stride = layout.channel_stride(), step = layout.pixel_stride();
  const Part p = part;
  const bool full = part.channels == kBlock<T>;
  const std::vector<T> weight = block_weights(s, f.weight, part, false);
  const PerChannel<T> bias(f.bias, part, 0);
  ring.begin(f.x, part, f.mean, f.rstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = layout.at(part.n, row, 0, part.channel);
    S* const y = f.y + start;
    const S* const residual = f.residual ? f.residual + start : nullptr;
    const bool relu = f.relu;
    convolve_block_row<K>(
        s, part, ring, weight.data(), bias, row,
        [=](int64_t column) {
          if (residual) fetch(residual + column * step);
        },
        [=](int64_t column, int vector, Vec<T> v) {
          const int numbers = full ? kLanes<T> : numbers_of<T>(p, vector);
          const int64_t at = column * step + vector * kLanes<T> * stride;
          if (residual) v += read_channels<channels_last, S, T>(residual + at, stride, numbers);
          if (relu) v = v < 0 ? Vec<T>{} : v;
          write_channels<channels_last, S, T>(y + at, stride, v, numbers);
        });
  }
}

template <int K, bool channels_last, class S, class T>
void input_part(const Shape& s, const Backward<S, T>& b, const Part& part,
                BlockRing<channels_last, S, T>& ring, bool frozen) {
  const Layout<channels_last> layout{s};
  const int64_t stride = layout.channel_stride(), step = layout.pixel_stride();
  const Part p = part;
  const bool full = part.channels == kBlock<T>;
  const std::vector<T> weight = block_weights(s, b.weight, part, true);
  const PerChannel<T> zeros, mean(b.mean, part, 0), rstd(b.rstd, part, 0);
  PerChannel<T> constant(b.of_grad, part, 0), slope(b.of_product, part, 0);
  for (int i = 0; i < kBlockVectors<T>; ++i) {
    constant.vectors[i] *= rstd.vectors[i];
    slope.vectors[i] *= rstd.vectors[i] * rstd.vectors[i];
  }
  ring.begin(b.grad, part, nullptr, nullptr);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = layout.at(part.n, row, 0, part.channel);
    S* const grad_x = b.grad_x + start;
    const S* const x = frozen ? nullptr : b.x + start;
    convolve_block_row<K>(
        s, part, ring, weight.data(), zeros, row,
        [=](int64_t column) {
          if (x) fetch(x + column * step);
        },
        [=](int64_t column, int i, Vec<T> v) {
          const int numbers = full ? kLanes<T> : numbers_of<T>(p, i);
          const int64_t at = column * step + i * kLanes<T> * stride;
          v *= rstd.vectors[i];
          if (x) {
            const Vec<T> x_v = read_channels<channels_last, S, T>(x + at, stride, numbers);
            v -= constant.vectors[i] + (x_v - mean.vectors[i]) * slope.vectors[i];
          }
          write_channels<channels_last, S, T>(grad_x + at, stride, v, numbers);
        });
  }
}

// Sums of a block's channels over some parts: kernel gradient, bias gradient and the gradient's sum
// over what each tap sees.
template <class T>
struct BlockSums {
  std::vector<double> grad_weight, seen, grad_bias;
  explicit BlockSums(int k)
      : grad_weight(k * k * kBlock<T>, 0), seen(k * k * kBlock<T>, 0), grad_bias(kBlock<T>, 0) {}
};

template <int K, bool channels_last, class S, class T>
void reduce_part(const Shape& s, const Backward<S, T>& b, const Part& part,
                 BlockRing<channels_last, S, T>& ring, BlockSums<T>& total) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const Layout<channels_last> layout{s};
  const int64_t stride = layout.channel_stride(), step = layout.pixel_stride();
  const int k = K ? K : s.k;
  const int64_t pad = s.padding(), width = part.right - part.left;
  std::vector<T> grad(width * block), sums(k * k * block, T(0)), in_row(k * block);
  std::vector<T> whole_rows(k * block, T(0));
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the map
    for (int t = 0; t < k * k * block; ++t) total.grad_weight[t] += sums[t];
    for (int i = 0; i < k; ++i)
      for (int t = 0; t < k * block; ++t) total.seen[i * k * block + t] += whole_rows[t];
    std::fill(sums.begin(), sums.end(), T(0));
    std::fill(whole_rows.begin(), whole_rows.end(), T(0));
    steps = 0;
  };
  ring.begin(b.x, part, b.mean, b.rstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + pad);
    const S* from = b.grad + layout.at(part.n, row, part.left, part.channel);
    PerChannel<T> row_sums;
    for (int64_t w = 0; w < width; ++w, from += step)
      for (int v = 0; v < kBlockVectors<T>; ++v) {
        const Vec<T> g = read_channels<channels_last, S, T>(from + v * lanes * stride, stride,
                                                            numbers_of<T>(part, v));
        store(&grad[w * block + v * lanes], g);
        row_sums.vectors[v] += g;
      }
    T row_sum[block];
    for (int v = 0; v < kBlockVectors<T>; ++v) store(row_sum + v * lanes, row_sums.vectors[v]);
    for (int i = 0; i < block; ++i) total.grad_bias[i] += row_sum[i];
    // What each column of the kernel sees of this row: a tap is not used where it falls outside.
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
      for (int vector = 0; vector < kBlockVectors<T>; ++vector) {
        const T* x = x_row + vector * lanes;
        const T* g = grad.data() + vector * lanes;
        T* to = &sums[i * k * block + vector * lanes];
        if constexpr (K > 0) {
          Vec<T> products[K];
          for (int j = 0; j < K; ++j) products[j] = load(to + j * block);
          for (int64_t w = 0; w < width; ++w) {
            const Vec<T> g_v = load(g + w * block);
#pragma GCC unroll 7
            for (int j = 0; j < K; ++j)
              products[j] += g_v * load(x + (w + int64_t(j) * s.dilation) * block);
          }
          for (int j = 0; j < K; ++j) store(to + j * block, products[j]);
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

// Mean, and sum of squared distances from it, of each channel of a channels_last map over pixels
// [first, last).
template <class S, class T>
void statistics_pixels(const Shape& s, const S* x, int64_t first, int64_t last, double* mean,
                       double* squares) {
  constexpr int kTile = 64, block = kBlock<T>, lanes = kLanes<T>;
  std::fill(mean, mean + s.c, 0.0);
  std::fill(squares, squares + s.c, 0.0);
  std::vector<T> tile(kTile * block);
  for (int64_t start = first; start < last; start += kTile) {
    const int pixels = int(std::min<int64_t>(kTile, last - start));
    const double share = double(pixels) / double(start - first + pixels);
    const double weight = share * double(start - first);
    for (int64_t channel = 0; channel < s.c; channel += block) {
      const int channels = int(std::min<int64_t>(block, s.c - channel));
      const Part part{0, 0, 0, 0, 0, channel, channels};
      T means[block], distances[block];
      for (int v = 0; v < kBlockVectors<T>; ++v) {
        const int numbers = numbers_of<T>(part, v);
        const S* from = x + start * s.c + channel + v * lanes;
        T* to = tile.data() + v * lanes;
        Vec<T> sums[2] = {};
        for (int p = 0; p < pixels; ++p) {
          const Vec<T> x_v = read<S, T>(from + p * s.c, numbers);
          store(to + p * block, x_v);
          sums[p & 1] += x_v;
        }
        const Vec<T> mean_v = (sums[0] + sums[1]) / T(pixels);
        Vec<T> squares_v[2] = {};
        for (int p = 0; p < pixels; ++p) {
          const Vec<T> distance = load(to + p * block) - mean_v;
          squares_v[p & 1] += distance * distance;
        }
        store(means + v * lanes, mean_v);
        store(distances + v * lanes, Vec<T>(squares_v[0] + squares_v[1]));
      }
      // Chan's formula: tiles are joined by their means, raw squares would cancel.
      for (int i = 0; i < channels; ++i) {
        const double delta = means[i] - mean[channel + i];
        mean[channel + i] += delta * share;
        squares[channel + i] += distances[i] + delta * delta * weight;
      }
    }
  }
}

}  // namespace bnet
