// The passes over whole feature maps: how they are divided into jobs for threads, and how the sums
// of the jobs are joined, in an order that does not depend on the number of threads.
//
// Contiguous feature maps are divided by channels (planes.h), channels_last ones into blocks of
// channels and parts of images (blocks.h), and so are contiguous ones with short rows (tiles.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "blocks.h"
#include "layer.h"
#include "planes.h"
#include "statistics.h"
#include "tiles.h"

namespace bnet {

// Enough parts to keep many threads busy, decided by the shape alone.
constexpr int64_t kParts = 64;
constexpr int64_t kLeastRows = 16;
constexpr int64_t kLeastParts = 16;
constexpr int64_t kLeastPixels = 256;
// Sums of parts are kept until they are joined, which takes memory.
constexpr int64_t kSums = 32;
// Columns of a part of the narrowest block: few enough that its rows stay in the L2 cache, and as
// many as that allows, since memory is fastest in long runs.
constexpr int64_t kColumns = 320;
template <class T>
struct Parts {
  const Shape s;
  const int block;
  // `groups` of units, and of those that add up, of which fewer groups have less to join.
  const int64_t blocks, strips, bands, groups, sums;

  Parts(const Shape& shape, bool tiled)
      : s(shape),
        block(tiled ? kBlock<T> : block_of(shape)),
        blocks((s.c + block - 1) / block),
        strips(tiled ? 1 : strips_of(s, block)),
        bands(tiled ? 1
                    : std::clamp<int64_t>(kParts / std::max<int64_t>(1, s.n * blocks * strips), 1,
                                          std::max<int64_t>(1, s.h / kLeastRows))),
        groups(
            std::clamp<int64_t>((kParts + blocks - 1) / blocks, 1, std::max<int64_t>(1, units()))),
        sums(std::min(
            {groups, (kSums + blocks - 1) / blocks,
             std::max((kLeastParts + blocks - 1) / blocks, s.n * s.pixels() / kLeastPixels)})) {}

  int64_t units() const { return s.n * bands * strips; }  // of each block of channels
  int64_t width() const { return (s.w + strips - 1) / strips; }

  Part operator()(int64_t index, int64_t unit) const {
    const int64_t strip = unit % strips, band = unit / strips % bands, n = unit / strips / bands;
    const int64_t channel = index * block;
    return {n,
            s.h * band / bands,
            s.h * (band + 1) / bands,
            s.w * strip / strips,
            s.w * (strip + 1) / strips,
            channel,
            int(std::min<int64_t>(block, s.c - channel)),
            block};
  }

 private:
  // The widest block that has channels for all of it and leaves parts enough.
  static int block_of(const Shape& s) {
    int block = kWidestBlock<T>;
    while (block > kBlock<T> && (block > s.c || s.c / block * s.n * strips_of(s, block) *
                                                        std::max<int64_t>(1, s.h / kLeastRows) <
                                                    kLeastParts))
      block /= 2;
    return block;
  }
  static int64_t strips_of(const Shape& s, int block) {
    const int64_t columns = kColumns * kBlock<T> / block;
    return std::max<int64_t>(1, (s.w + columns / 2) / columns);
  }
};

template <class S, class T>
void statistics(const Shape& s, bool channels_last, const S* x, T* mean, T* var, int threads) {
  if (!channels_last) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < s.c; ++c) statistics_channel<S, T>(s, x, c, mean, var);
    return;
  }
  const int64_t count = s.n * s.pixels();
  const int64_t groups = std::clamp<int64_t>(count / 256, 1, kParts);
  std::vector<double> means(groups * s.c), squares(groups * s.c);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t g = 0; g < groups; ++g)
    statistics_pixels<S, T>(s, x, count * g / groups, count * (g + 1) / groups, &means[g * s.c],
                            &squares[g * s.c]);
  for (int64_t g = 1; g < groups; ++g) {
    const double before = double(count * g / groups), total = double(count * (g + 1) / groups);
    const double share = (total - before) / total;
    for (int64_t c = 0; c < s.c; ++c) {
      const double delta = means[g * s.c + c] - means[c];
      means[c] += delta * share;
      squares[c] += squares[g * s.c + c] + delta * delta * share * before;
    }
  }
  for (int64_t c = 0; c < s.c; ++c) {
    mean[c] = T(means[c]);
    var[c] = T(squares[c] / double(count));
  }
}

// Calls `run(channel, scratch)` for every channel of a contiguous feature map, with a scratch for
// each thread.
template <class S, class T, class Run>
void for_channels(const Shape& s, int threads, Run run) {
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Scratch<S, T> scratch(s);
#pragma omp for schedule(dynamic, 4)
    for (int64_t c = 0; c < s.c; ++c) run(c, scratch);
  }
}

// Calls `run(part, room, index)` for every part of a feature map, with a room for each thread; its
// blocks of channels come one after the other, and each of them in `groups` parts of its units.
template <class Room, class T, class Make, class Run>
void for_parts(const Parts<T>& parts, int64_t groups, int threads, Make make, Run run) {
  const int64_t count = parts.blocks * groups, units = parts.units();
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Room room = make();
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < count; ++p) {
      const int64_t g = p / parts.blocks;
      for (int64_t u = units * g / groups; u < units * (g + 1) / groups; ++u)
        run(parts(p % parts.blocks, u), room, p);
    }
  }
}

// The same with the room of a feature map's format, `BlockRing` or `Tiles`.
template <class S, class T, class Run>
void for_parts(const Shape& s, const Parts<T>& parts, bool tiled, int64_t groups, int threads,
               Run run) {
  if (tiled)
    for_parts<Tiles<T>>(parts, groups, threads, [&] { return Tiles<T>(s); }, run);
  else
    for_parts<BlockRing<S, T>>(
        parts, groups, threads, [&] { return BlockRing<S, T>(s, parts.width(), parts.block); },
        run);
}

template <int K, class S, class T>
void forward_blocks(const Shape& s, const Forward<S, T>& f, bool tiled, int threads) {
  const Parts<T> parts(s, tiled);
  for_parts<S>(s, parts, tiled, parts.groups, threads, [&](const Part& part, auto& room, int64_t) {
    if constexpr (std::is_same_v<decltype(room), Tiles<T>&>)
      forward_tile<K>(s, f, part, room);
    else
      forward_part<K>(s, f, part, room);
  });
}

template <int K, class S, class T>
void forward(const Shape& s, bool channels_last, const Forward<S, T>& f, int threads) {
  const bool tiled = !channels_last && in_tiles<T>(s);
  if (channels_last || tiled) return forward_blocks<K>(s, f, tiled, threads);
  for_channels<S, T>(
      s, threads, [&](int64_t c, Scratch<S, T>& scratch) { forward_channel<K>(s, f, c, scratch); });
}

// Forward in training: a channel's statistics and its output while the channel is in the cache.
template <int K, class S, class T>
void forward_training(const Shape& s, bool channels_last, const Forward<S, T>& f, T* mean, T* var,
                      T* invstd, double eps, int threads) {
  auto invert = [=](int64_t c) { invstd[c] = T(1 / std::sqrt(double(var[c]) + eps)); };
  const bool tiled = !channels_last && in_tiles<T>(s);
  if (channels_last || tiled) {
    statistics<S, T>(s, channels_last, f.x, mean, var, threads);
    for (int64_t c = 0; c < s.c; ++c) invert(c);
    return forward_blocks<K>(s, f, tiled, threads);
  }
  for_channels<S, T>(s, threads, [&](int64_t c, Scratch<S, T>& scratch) {
    statistics_channel<S, T>(s, f.x, c, mean, var);
    invert(c);
    forward_channel<K>(s, f, c, scratch);
  });
}

template <int K, class S, class T>
void reduce_blocks(const Shape& s, const Backward<S, T>& b, bool tiled, int threads) {
  const Parts<T> parts(s, tiled);
  const int taps = s.k * s.k, block = parts.block;
  std::vector<BlockSums<T>> sums(parts.blocks * parts.sums, BlockSums<T>(s.k, block));
  for_parts<S>(s, parts, tiled, parts.sums, threads, [&](const Part& part, auto& room, int64_t p) {
    if constexpr (std::is_same_v<decltype(room), Tiles<T>&>)
      reduce_tile<K>(s, b, part, room, sums[p]);
    else
      reduce_part<K>(s, b, part, room, sums[p]);
  });
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t c = 0; c < s.c; ++c) {
    const int64_t of_block = c / block, i = c % block;
    double grad_bias = 0, sum_dy = 0;
    for (int64_t g = 0; g < parts.sums; ++g)
      grad_bias += sums[g * parts.blocks + of_block].grad_bias[i];
    for (int t = 0; t < taps; ++t) {
      double grad_weight = 0, seen = 0;
      for (int64_t g = 0; g < parts.sums; ++g) {
        const BlockSums<T>& part = sums[g * parts.blocks + of_block];
        grad_weight += part.grad_weight[t * block + i];
        seen += part.seen[t * block + i];
      }
      b.grad_weight[c * taps + t] = T(grad_weight);
      sum_dy += b.weight[c * taps + t] * seen;
    }
    b.grad_bias[c] = T(grad_bias);
    b.sum_dy[c] = T(sum_dy);
  }
}

// Means over a channel of dy, the gradient of the normalized feature map x_hat, and of dy * x_hat,
// whose sum is <weight, grad_weight>: the output is linear in both.
template <class S, class T>
void means_of_gradient(const Shape& s, const Backward<S, T>& b, int64_t c, T* mean_dy,
                       T* mean_dy_xmu) {
  const double count = double(s.n) * s.pixels();
  double product = 0;
  for (int64_t t = c * s.k * s.k; t < (c + 1) * s.k * s.k; ++t)
    product += double(b.weight[t]) * b.grad_weight[t];
  *mean_dy = T(b.sum_dy[c] / count);
  *mean_dy_xmu = T(product / count);
}

enum Passes { kReduce = 1, kInput = 2, kFrozen = 4 };

template <int K, class S, class T>
void backward_blocks(const Shape& s, Backward<S, T> b, bool tiled, int passes, int threads) {
  const bool frozen = passes & kFrozen;
  if (passes & kReduce) reduce_blocks<K>(s, b, tiled, threads);
  if (!(passes & kInput)) return;
  std::vector<T> mean_dy, mean_dy_xmu;
  if ((passes & kReduce) && !frozen) {
    mean_dy.resize(s.c);
    mean_dy_xmu.resize(s.c);
    for (int64_t c = 0; c < s.c; ++c) means_of_gradient(s, b, c, &mean_dy[c], &mean_dy_xmu[c]);
    b.mean_dy = mean_dy.data();
    b.mean_dy_xmu = mean_dy_xmu.data();
  }
  const Parts<T> parts(s, tiled);
  for_parts<S>(s, parts, tiled, parts.groups, threads, [&](const Part& part, auto& room, int64_t) {
    if constexpr (std::is_same_v<decltype(room), Tiles<T>&>)
      input_tile<K>(s, b, part, room, frozen);
    else
      input_part<K>(s, b, part, room, frozen);
  });
}

template <int K, class S, class T>
void backward(const Shape& s, bool channels_last, const Backward<S, T>& b, int passes,
              int threads) {
  const bool tiled = !channels_last && in_tiles<T>(s);
  if (channels_last || tiled) return backward_blocks<K>(s, b, tiled, passes, threads);
  const bool frozen = passes & kFrozen, both = (passes & kReduce) && (passes & kInput);
  for_channels<S, T>(s, threads, [&](int64_t c, Scratch<S, T>& scratch) {
    if (passes & kReduce) reduce_channel<K>(s, b, c, scratch);
    if (!(passes & kInput)) return;
    T mean_dy = 0, mean_dy_xmu = 0;
    if (both && !frozen) means_of_gradient(s, b, c, &mean_dy, &mean_dy_xmu);
    if (!both && !frozen) mean_dy = b.mean_dy[c], mean_dy_xmu = b.mean_dy_xmu[c];
    input_channel<K>(s, b, c, scratch, mean_dy, mean_dy_xmu, frozen);
  });
}

}  // namespace bnet
