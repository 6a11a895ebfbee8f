// Blocks of channels: parts of them, their values and kernels, and the ring of rows through which a
// part goes, converted, normalized and padded, in which its channels lie side by side, pixel by
// pixel.
//
// Read in place, pixels that are a power of two apart would throw each other out of the cache.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"

namespace bnet {

// Channels of the narrowest and of the widest block. Wide ones read memory in long runs, narrow
// ones are more jobs for threads.
template <class T>
constexpr int kBlock = 256 / sizeof(T);
template <class T>
constexpr int kWidestBlock = 4 * kBlock<T>;
template <class T>
constexpr int kMostVectors = kWidestBlock<T> / kLanes<T>;

// Neighbouring pixels whose sums are kept in registers.
constexpr int kPixels = 8;

// How many pixels ahead memory is prefetched: neighbouring pixels are too far from one another for
// the processor to guess.
constexpr int kAhead = 16;

// A part of the work: `channels` channels from `channel` on, rows [top, bottom) and columns
// [left, right) of image n. `block`: the channels of its block, of which it may have fewer.
struct Part {
  int64_t n, top, bottom, left, right, channel;
  int channels, block;
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
  Vec<T> vectors[kMostVectors<T>]{};

  PerChannel() = default;
  PerChannel(const T* values, const Part& part, T other) {
    for (int v = 0; v < part.block / kLanes<T>; ++v) {
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
inline void fetch(const S* from, const Part& part) {
  for (int i = 0; i < part.channels; i += 64 / int(sizeof(S))) __builtin_prefetch(from + i);
}

// The kernels of a block's channels side by side, [tap][channel], kept for the parts that follow.
template <class T>
class BlockWeights {
 public:
  BlockWeights(const Shape& s, int block) : taps(s.k * s.k), numbers(taps * block) {}

  const T* of(const T* weight, const Part& part, bool flipped) {
    const T* first = weight + part.channel * taps;
    if (first == kept) return numbers.data();
    kept = first;
    for (int i = 0; i < part.channels; ++i)
      for (int t = 0; t < taps; ++t)
        numbers[t * part.block + i] = first[i * taps + (flipped ? taps - 1 - t : t)];
    return numbers.data();
  }

 private:
  const int taps;
  Buffer<T> numbers;
  const T* kept = nullptr;
};

// Rows of a block, converted, normalized and padded, as many as the taps of a row of output see.
template <class S, class T>
class BlockRing {
 public:
  // `width`: the most columns that a part has.
  BlockRing(const Shape& shape, int64_t width, int block)
      : weights(shape, block),
        s(shape),
        pad(shape.padding()),
        rows(2 * pad + 1),
        stride((round_up(width, kPixels) + 2 * pad) * block),
        numbers(rows * stride) {}

  void begin(const S* map_, const Part& part_, const T* mean, const T* invstd) {
    map = map_;
    part = part_;
    loaded = std::max<int64_t>(0, part.top - pad);
    normalize = mean != nullptr;
    means = PerChannel<T>(mean, part, 0);
    invstds = PerChannel<T>(invstd, part, 1);
  }

  // Loads what is missing up to `row`, as far as the feature map has rows.
  void load_until(int64_t row) {
    const int64_t first = std::max<int64_t>(0, part.left - pad);
    const int64_t last = std::min<int64_t>(s.w, part.right + pad);
    const Part p = part;  // a copy, which no store can be suspected of changing
    const int vectors = vectors_of<T>(p);
    for (; loaded <= row && loaded < s.h; ++loaded) {
      T* const start = &numbers[loaded % rows * stride];
      T* to = start + (first - p.left + pad) * p.block;
      const S* from = map + position(s, p.n, loaded, first, p.channel);
      std::fill(start, to, T(0));
      std::fill(to + (last - first) * p.block, start + stride, T(0));
      for (int64_t w = first; w < last; ++w, from += s.c, to += p.block) {
        fetch<T>(from + kAhead * s.c, p);
        for (int v = 0; v < vectors; ++v) {
          Vec<T> x = read<S, T>(from + v * kLanes<T>, numbers_of<T>(p, v));
          if (normalize) x = (x - means.vectors[v]) * invstds.vectors[v];
          store(to + v * kLanes<T>, x);
        }
      }
    }
  }

  BlockWeights<T> weights;

  // The first value of a row, `padding` columns left of the part.
  const T* row(int64_t index) const { return &numbers[index % rows * stride]; }

 private:
  const Shape s;
  const int64_t pad, rows, stride;
  Buffer<T> numbers;

  const S* map = nullptr;
  Part part{};
  PerChannel<T> means, invstds;
  bool normalize = false;
  int64_t loaded = 0;
};

}  // namespace bnet
