// One block of channels of maps in NHWC (channels_last): vectors run along the channels.
//
// As for NCHW a block goes through a ring of converted, normalized and padded rows. In it the
// channels of a block lie side by side, pixel by pixel: read in place, pixels that are a power of
// two apart would throw each other out of the cache.
#pragma once

#include <algorithm>
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

// A part of the work: channels [channel, channel + channels) of rows [first, last) of map n.
struct Part {
  int64_t n, first, last, channel;
  int channels;
};

template <class S, class T>
inline void load_channels(const S* from, T* to, int channels) {
  if (channels == kBlock<T>) {
    for (int i = 0; i < kBlock<T>; ++i) to[i] = to_number(from[i]);
  } else {
    for (int i = 0; i < channels; ++i) to[i] = to_number(from[i]);
  }
}

template <class S, class T>
inline void store_channels(const T* from, S* to, int channels) {
  if (channels == kBlock<T>) {
    for (int i = 0; i < kBlock<T>; ++i) from_number(from[i], to + i);
  } else {
    for (int i = 0; i < channels; ++i) from_number(from[i], to + i);
  }
}

template <class S, class T>
class BlockRing {
 public:
  explicit BlockRing(const Shape& shape)
      : s(shape),
        pad(shape.padding()),
        rows(2 * pad + 1),
        stride((round_up(shape.w, kPixels) + 2 * pad) * kBlock<T>),
        numbers(rows * stride, T(0)) {}

  // `mean` and `rstd` point to the part's own channels, or are null.
  void begin(const S* map_, const Part& part_, const T* mean, const T* rstd) {
    map = map_;
    part = part_;
    loaded = std::max<int64_t>(0, part.first - pad);
    for (int i = 0; i < kBlock<T>; ++i) {
      means[i] = mean && i < part.channels ? mean[i] : T(0);
      rstds[i] = rstd && i < part.channels ? rstd[i] : T(1);
    }
    normalize = mean != nullptr;
    if (part.channels < kBlock<T>) std::fill(numbers.begin(), numbers.end(), T(0));
  }

  void load_until(int64_t row) {
    for (; loaded <= row && loaded < s.h; ++loaded) {
      const S* from = map + ((part.n * s.h + loaded) * s.w) * s.c + part.channel;
      T* to = &numbers[loaded % rows * stride + pad * kBlock<T>];
      for (int64_t w = 0; w < s.w; ++w, from += s.c, to += kBlock<T>) {
        load_channels(from, to, part.channels);
        if (normalize)
          for (int i = 0; i < kBlock<T>; ++i) to[i] = (to[i] - means[i]) * rstds[i];
        // Channels that the map does not have are zero in every sum.
        if (part.channels < kBlock<T>) std::fill(to + part.channels, to + kBlock<T>, T(0));
      }
    }
  }

  const T* row(int64_t index) const { return &numbers[index % rows * stride]; }

 private:
  const Shape s;
  const int64_t pad, rows, stride;
  std::vector<T> numbers;
  const S* map = nullptr;
  Part part{};
  T means[kBlock<T>], rstds[kBlock<T>];
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

// Calls `finish(column, block)` for each pixel of a row of output.
template <int K, class T, class Ring, class Finish>
inline void convolve_block_row(const Shape& s, const Ring& ring, const T* weight, const T* start,
                               int64_t row, Finish finish) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const int k = K ? K : s.k;
  const Rows valid(s, row);
  for (int64_t column = 0; column < s.w; column += kPixels) {
    T values[kPixels * block];
    for (int vector = 0; vector < kBlockVectors<T>; ++vector) {
      Vec<T> sums[kPixels];
      for (auto& v : sums) v = load(start + vector * lanes);
      for (int i = valid.first; i < valid.last; ++i) {
        const T* from = ring.row(row + int64_t(i) * s.dilation - s.padding()) + column * block +
                        vector * lanes;
        const T* tap = weight + i * k * block + vector * lanes;
#pragma GCC unroll 7
        for (int j = 0; j < k; ++j) {
          const Vec<T> tap_v = load(tap + j * block);
          const T* x = from + int64_t(j) * s.dilation * block;
          for (int p = 0; p < kPixels; ++p) sums[p] += load(x + p * block) * tap_v;
        }
      }
      for (int p = 0; p < kPixels; ++p) store(values + p * block + vector * lanes, sums[p]);
    }
    const int pixels = int(std::min<int64_t>(kPixels, s.w - column));
    for (int p = 0; p < pixels; ++p) finish(column + p, values + p * block);
  }
}

template <int K, class S, class T>
void forward_part_nhwc(const Shape& s, const Forward<S, T>& f, const Part& part,
                       BlockRing<S, T>& ring) {
  constexpr int block = kBlock<T>;
  const std::vector<T> weight = block_weights(s, f.weight, part, false);
  T bias[block] = {};
  std::copy(f.bias + part.channel, f.bias + part.channel + part.channels, bias);
  ring.begin(f.x, part, f.mean ? f.mean + part.channel : nullptr,
             f.rstd ? f.rstd + part.channel : nullptr);
  for (int64_t row = part.first; row < part.last; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = ((part.n * s.h + row) * s.w) * s.c + part.channel;
    convolve_block_row<K>(s, ring, weight.data(), bias, row, [&](int64_t column, T* v) {
      const int64_t at = start + column * s.c;
      if (f.residual) {
        T residual[block] = {};
        load_channels(f.residual + at, residual, part.channels);
        for (int i = 0; i < block; ++i) v[i] += residual[i];
      }
      if (f.relu)
        for (int i = 0; i < block; ++i) v[i] = v[i] < 0 ? T(0) : v[i];
      store_channels(v, f.y + at, part.channels);
    });
  }
}

template <int K, class S, class T>
void input_part_nhwc(const Shape& s, const Backward<S, T>& b, const Part& part,
                     BlockRing<S, T>& ring, bool frozen) {
  constexpr int block = kBlock<T>;
  const std::vector<T> weight = block_weights(s, b.weight, part, true);
  T zeros[block] = {}, mean[block] = {}, rstd[block] = {}, of_grad[block] = {},
    of_product[block] = {};
  for (int i = 0; i < part.channels; ++i) {
    rstd[i] = b.rstd[part.channel + i];
    if (frozen) continue;
    mean[i] = b.mean[part.channel + i];
    of_grad[i] = b.of_grad[part.channel + i];
    of_product[i] = b.of_product[part.channel + i];
  }
  ring.begin(b.grad, part, nullptr, nullptr);
  for (int64_t row = part.first; row < part.last; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = ((part.n * s.h + row) * s.w) * s.c + part.channel;
    convolve_block_row<K>(s, ring, weight.data(), zeros, row, [&](int64_t column, T* v) {
      const int64_t at = start + column * s.c;
      if (!frozen) {
        T x[block] = {};
        load_channels(b.x + at, x, part.channels);
        for (int i = 0; i < block; ++i)
          v[i] -= of_grad[i] + (x[i] - mean[i]) * rstd[i] * of_product[i];
      }
      for (int i = 0; i < block; ++i) v[i] *= rstd[i];
      store_channels(v, b.grad_x + at, part.channels);
    });
  }
}

// Sums of a block's channels over some parts: kernel gradient, bias gradient and the gradient's sum
// over what each tap sees.
template <class T>
struct BlockSums {
  static constexpr int block = kBlock<T>;
  std::vector<double> grad_weight, seen, grad_bias;
  explicit BlockSums(int k)
      : grad_weight(k * k * block, 0), seen(k * k * block, 0), grad_bias(block, 0) {}
};

template <int K, class S, class T>
void reduce_part_nhwc(const Shape& s, const Backward<S, T>& b, const Part& part,
                      BlockRing<S, T>& ring, BlockSums<T>& total) {
  constexpr int lanes = kLanes<T>, block = kBlock<T>;
  const int k = K ? K : s.k;
  const int64_t pad = s.padding();
  std::vector<T> grad(s.w * block, T(0)), sums(k * k * block, T(0)), in_row(k * block);
  std::vector<double> whole_rows(k * block, 0);
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the map
    for (int t = 0; t < k * k * block; ++t) total.grad_weight[t] += sums[t];
    std::fill(sums.begin(), sums.end(), T(0));
    steps = 0;
  };
  ring.begin(b.x, part, b.mean + part.channel, b.rstd + part.channel);
  for (int64_t row = part.first; row < part.last; ++row) {
    ring.load_until(row + pad);
    const S* from = b.grad + ((part.n * s.h + row) * s.w) * s.c + part.channel;
    T row_sum[block] = {};
    for (int64_t w = 0; w < s.w; ++w) {
      T* to = &grad[w * block];
      load_channels(from + w * s.c, to, part.channels);
      for (int i = 0; i < block; ++i) row_sum[i] += to[i];
    }
    for (int i = 0; i < block; ++i) total.grad_bias[i] += row_sum[i];
    // What each column of the kernel sees of this row: a tap is not used where it falls outside.
    for (int j = 0; j < k; ++j) {
      const int64_t first = std::clamp<int64_t>(pad - int64_t(j) * s.dilation, 0, s.w);
      const int64_t last = std::clamp<int64_t>(s.w + pad - int64_t(j) * s.dilation, first, s.w);
      T* seen = &in_row[j * block];
      std::copy(row_sum, row_sum + block, seen);
      for (int64_t w = 0; w < first; ++w)
        for (int i = 0; i < block; ++i) seen[i] -= grad[w * block + i];
      for (int64_t w = last; w < s.w; ++w)
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
          for (int64_t w = 0; w < s.w; ++w) {
            const Vec<T> g_v = load(g + w * block);
#pragma GCC unroll 7
            for (int j = 0; j < K; ++j)
              products[j] += g_v * load(x + (w + int64_t(j) * s.dilation) * block);
          }
          for (int j = 0; j < K; ++j) store(to + j * block, products[j]);
        } else {
          for (int j = 0; j < k; ++j) {
            Vec<T> products = load(to + j * block);
            for (int64_t w = 0; w < s.w; ++w)
              products += load(g + w * block) * load(x + (w + int64_t(j) * s.dilation) * block);
            store(to + j * block, products);
          }
        }
      }
    }
    steps += s.w;
    if (steps >= 512) flush();
  }
  flush();
  for (int i = 0; i < k; ++i)
    for (int t = 0; t < k * block; ++t) total.seen[i * k * block + t] += whole_rows[t];
}

// Count, mean and sum of squared distances from it, of each channel over pixels [first, last).
template <class S, class T>
void statistics_pixels_nhwc(const Shape& s, const S* x, int64_t first, int64_t last, double* mean,
                            double* squares) {
  constexpr int kTile = 32, block = kBlock<T>;
  std::fill(mean, mean + s.c, 0.0);
  std::fill(squares, squares + s.c, 0.0);
  T tile[kTile * block];
  for (int64_t start = first; start < last; start += kTile) {
    const int pixels = int(std::min<int64_t>(kTile, last - start));
    const double share = double(pixels) / double(start - first + pixels);
    for (int64_t channel = 0; channel < s.c; channel += block) {
      const int channels = int(std::min<int64_t>(block, s.c - channel));
      T sums[block] = {}, distances[block] = {};
      if (channels < block) std::fill(tile, tile + kTile * block, T(0));
      for (int p = 0; p < pixels; ++p) {
        T* to = tile + p * block;
        load_channels(x + (start + p) * s.c + channel, to, channels);
        for (int i = 0; i < block; ++i) sums[i] += to[i];
      }
      for (int i = 0; i < block; ++i) sums[i] /= T(pixels);
      for (int p = 0; p < pixels; ++p)
        for (int i = 0; i < block; ++i) {
          const T distance = tile[p * block + i] - sums[i];
          distances[i] += distance * distance;
        }
      // Chan's formula: tiles are joined by their means, raw squares would cancel.
      for (int i = 0; i < channels; ++i) {
        const double delta = sums[i] - mean[channel + i];
        mean[channel + i] += delta * share;
        squares[channel + i] +=
            distances[i] + delta * delta * share * double(start - first);
      }
    }
  }
}

}  // namespace bnet
