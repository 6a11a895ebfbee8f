// One block of channels of a part of a feature map: vectors run along the channels.
//
// For channels_last feature maps, whose parts go through a `BlockRing`, and for tiles (tiles.h).
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"
#include "ring.h"

namespace bnet {

// Adds a row of taps to the sums of neighbouring pixels. Each pixel is loaded once, for all taps;
// `padded` tells that only those of [first, last) are not padding.
template <int K, bool padded, class T>
inline void add_taps(const T* x, const T* tap, int64_t block, int64_t first, int64_t last,
                     Vec<T> (&sums)[kPixels]) {
  Vec<T> taps[K > 0 ? K : 1];
#pragma GCC unroll 7
  for (int j = 0; j < K; ++j) taps[j] = load(tap + j * block);
#pragma GCC unroll 14
  for (int q = 0; q < kPixels + K - 1; ++q) {
    if (padded && (q < first || q >= last)) continue;
    const Vec<T> x_v = load(x + q * block);
#pragma GCC unroll 7
    for (int j = 0; j < K; ++j)
      if (q - j >= 0 && q - j < kPixels) sums[q - j] += x_v * taps[j];
  }
}

// Calls `prepare(column)` and later `finish(column, vector, sums)` for each pixel of a part's row
// of output.
template <int K, class T, class Ring, class Prepare, class Finish>
inline void convolve_block_row(const Shape& s, const Part& part, const Ring& ring, const T* weight,
                               const PerChannel<T>& start, int64_t row, Prepare prepare,
                               Finish finish) {
  constexpr int lanes = kLanes<T>;
  const int k = K ? K : s.k, vectors = vectors_of<T>(part);
  const int64_t block = part.block;
  const Rows valid(s, row);
  for (int64_t column = part.left; column < part.right; column += kPixels) {
    const int pixels = int(std::min<int64_t>(kPixels, part.right - column));
    const int64_t first = std::max<int64_t>(0, s.padding() - column);
    const int64_t last = s.w + s.padding() - column;
    for (int p = 0; p < pixels; ++p) prepare(column + p);
    Vec<T> sums[kMostVectors<T>][kPixels];
    for (int vector = 0; vector < vectors; ++vector) {
      Vec<T> block_sums[kPixels];
      for (auto& v : block_sums) v = start.vectors[vector];
      for (int i = valid.first; i < valid.last; ++i) {
        const T* from = ring.row(row + int64_t(i) * s.dilation - s.padding()) +
                        (column - part.left) * block + vector * lanes;
        const T* tap = weight + i * k * block + vector * lanes;
        if (K > 0 && s.dilation == 1) {
          if (first == 0 && last >= kPixels + K - 1)
            add_taps<K, false>(from, tap, block, first, last, block_sums);
          else
            add_taps<K, true>(from, tap, block, first, last, block_sums);
          continue;
        }
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

template <int K, class S, class T, class Ring>
void forward_part(const Shape& s, const Forward<S, T>& f, const Part& part, Ring& ring) {
  const int64_t step = s.c;
  const Part p = part;
  const bool full = part.channels % kLanes<T> == 0;
  const T* const weight = ring.weights.of(f.weight, part, false);
  const PerChannel<T> bias(f.bias, part, 0);
  S* const y = f.y;
  const S* const residual = f.residual;
  const bool relu = f.relu;
  ring.begin(f.x, part, f.mean, f.invstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = position(s, part.n, row, 0, part.channel);
    convolve_block_row<K>(
        s, part, ring, weight, bias, row,
        [=](int64_t column) {
          if (residual) fetch<T>(residual + start + column * step, p);
        },
        [=](int64_t column, int vector, Vec<T> v) {
          const int numbers = full ? kLanes<T> : numbers_of<T>(p, vector);
          const int64_t at = start + column * step + vector * kLanes<T>;
          if (residual) v += read<S, T>(residual + at, numbers);
          if (relu) v = v < 0 ? Vec<T>{} : v;
          write<S, T>(y + at, v, numbers);
        });
  }
}

template <int K, class S, class T, class Ring>
void input_part(const Shape& s, const Backward<S, T>& b, const Part& part, Ring& ring,
                bool frozen) {
  const int64_t step = s.c;
  const Part p = part;
  const bool full = part.channels % kLanes<T> == 0;
  const T* const weight = ring.weights.of(b.weight, part, true);
  const PerChannel<T> zeros, mean(b.mean, part, 0), invstd(b.invstd, part, 0);
  PerChannel<T> constant(b.mean_dy, part, 0), slope(b.mean_dy_xmu, part, 0);
  for (int i = 0; i < vectors_of<T>(part); ++i) {
    constant.vectors[i] *= invstd.vectors[i];
    slope.vectors[i] *= invstd.vectors[i] * invstd.vectors[i];
  }
  S* const grad_x = b.grad_x;
  const S* const x = frozen ? nullptr : b.x;
  // Once for all rows: it takes the constants of all channels with it.
  auto finish = [=](int64_t at, int i, Vec<T> v) {
    const int numbers = full ? kLanes<T> : numbers_of<T>(p, i);
    v *= invstd.vectors[i];
    if (x) {
      const Vec<T> x_v = read<S, T>(x + at, numbers);
      v -= constant.vectors[i] + (x_v - mean.vectors[i]) * slope.vectors[i];
    }
    write<S, T>(grad_x + at, v, numbers);
  };
  ring.begin(b.grad, part, nullptr, nullptr);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + s.padding());
    const int64_t start = position(s, part.n, row, 0, part.channel);
    convolve_block_row<K>(
        s, part, ring, weight, zeros, row,
        [=](int64_t column) {
          if (x) fetch<T>(x + start + column * step, p);
        },
        [&finish, start, step](int64_t column, int vector, Vec<T> v) {
          finish(start + column * step + vector * kLanes<T>, vector, v);
        });
  }
}

// Sums of a block's channels over some parts: the gradients of kernel and bias, and the sum of the
// output's gradient over the pixels whose tap falls inside the feature map, for each tap.
template <class T>
struct BlockSums {
  std::vector<double> grad_weight, seen, grad_bias;
  BlockSums(int k, int block)
      : grad_weight(k * k * block, 0), seen(k * k * block, 0), grad_bias(block, 0) {}
};

// Adds to `to` what a row of taps gives, over the pixels of a row. Of large kernels each pixel is
// loaded once, for all taps; of small ones there are `vectors` at a time, so that there are sums
// enough for the processor to work on side by side.
template <int K, int vectors, class T>
inline void add_products(const T* x, const T* g, int64_t width, int64_t block, T* to) {
  constexpr int lanes = kLanes<T>, pixels = vectors > 1 ? 1 : kVectorBytes == 64 ? kPixels : 4;
  constexpr int sets = K == 5 && pixels == kPixels ? 2 : 1;
  Vec<T> products[vectors][sets][K > 0 ? K : 1] = {};
  for (int64_t w = 0; w < width; w += pixels, x += pixels * block, g += pixels * block)
    for (int u = 0; u < vectors; ++u) {
      Vec<T> g_v[pixels];
      for (int p = 0; p < pixels; ++p) g_v[p] = load(g + p * block + u * lanes);
#pragma GCC unroll 14
      for (int q = 0; q < pixels + K - 1; ++q) {
        const Vec<T> x_v = load(x + q * block + u * lanes);
#pragma GCC unroll 7
        for (int j = 0; j < K; ++j)
          if (q - j >= 0 && q - j < pixels) products[u][(q - j) % sets][j] += g_v[q - j] * x_v;
      }
    }
  for (int u = 0; u < vectors; ++u)
    for (int j = 0; j < K; ++j) {
      Vec<T> total = load(to + j * block + u * lanes);
      for (int set = 0; set < sets; ++set) total += products[u][set][j];
      store(to + j * block + u * lanes, total);
    }
}

template <int K, class S, class T, class Ring>
void reduce_part(const Shape& s, const Backward<S, T>& b, const Part& part, Ring& ring,
                 BlockSums<T>& total) {
  constexpr int lanes = kLanes<T>;
  const int k = K ? K : s.k, vectors = vectors_of<T>(part);
  const int64_t pad = s.padding(), width = part.right - part.left, block = part.block;
  // Zeros follow the last pixel, where all pixels of a run are multiplied.
  Buffer<T> grad(round_up(width, kPixels) * block), sums(k * k * block), in_row(k * block),
      whole_rows(k * block);
  int64_t steps = 0;
  auto flush = [&] {  // so that rounding does not grow with the feature map
    for (int t = 0; t < k * k * block; ++t) total.grad_weight[t] += sums[t];
    for (int i = 0; i < k; ++i)
      for (int t = 0; t < k * block; ++t) total.seen[i * k * block + t] += whole_rows[t];
    sums.fill(T(0));
    whole_rows.fill(T(0));
    steps = 0;
  };
  ring.begin(b.x, part, b.mean, b.invstd);
  for (int64_t row = part.top; row < part.bottom; ++row) {
    ring.load_until(row + pad);
    const S* from = b.grad + position(s, part.n, row, part.left, part.channel);
    PerChannel<T> row_sums;
    for (int64_t w = 0; w < width; ++w, from += s.c)
      for (int v = 0; v < vectors; ++v) {
        const Vec<T> g = read<S, T>(from + v * lanes, numbers_of<T>(part, v));
        store(&grad[w * block + v * lanes], g);
        row_sums.vectors[v] += g;
      }
    T row_sum[kWidestBlock<T>];
    for (int v = 0; v < block / lanes; ++v) store(row_sum + v * lanes, row_sums.vectors[v]);
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
      constexpr int at_once = K == 1 || K == 3 ? 4 : 1;  // which the narrowest block has
      for (int vector = 0; vector < vectors; vector += at_once) {
        const T* x = x_row + vector * lanes;
        const T* g = grad.data() + vector * lanes;
        T* to = &sums[i * k * block + vector * lanes];
        if (K > 0 && s.dilation == 1) {
          add_products<K, at_once>(x, g, width, block, to);
          continue;
        }
        for (int u = 0; u < at_once; ++u)
          for (int j = 0; j < k; ++j) {
            const T* x_j = x + int64_t(j) * s.dilation * block + u * lanes;
            Vec<T> products = load(to + j * block + u * lanes);
            for (int64_t w = 0; w < width; ++w)
              products += load(g + w * block + u * lanes) * load(x_j + w * block);
            store(to + j * block + u * lanes, products);
          }
      }
    }
    steps += width;
    if (steps >= 512) flush();
  }
  flush();
}

}  // namespace bnet
