// One block of channels of an image that is contiguous and small: a tile, in which the channels lie
// side by side, pixel by pixel.
//
// Rows that are shorter than a vector leave most of it empty, and channels do not. The functions of
// blocks.h compute on tiles; here is how a tile is filled, and how a result goes back.
#pragma once

#include <algorithm>
#include <vector>

#include "blocks.h"

namespace bnet {

// Whether a contiguous feature map goes through tiles: its rows fill a vector badly, its channels
// do not, and the tiles stay in the cache.
template <class T>
inline bool in_tiles(const Shape& s) {
  const int64_t around = 2 * s.padding();
  return 4 * s.w <= 3 * kLanes<T> && s.c >= kLanes<T> && (s.h + around) * (s.w + around) <= 1024;
}

// Calls `run(channel, pixel, pixels)` for squares of a vector's channels by as many pixels, all of
// a part's. Of pixels that are no multiple of a vector the last two squares overlap.
template <class T, class Run>
inline void for_squares(const Shape& s, const Part& part, Run run) {
  constexpr int lanes = kLanes<T>;
  const int64_t pixels = s.pixels();
  for (int channel = 0; channel < part.channels; channel += lanes)
    for (int64_t pixel = 0; pixel < pixels; pixel += lanes)
      run(channel, std::max<int64_t>(0, std::min(pixel, pixels - lanes)),
          int(std::min<int64_t>(lanes, pixels)));
}

// A tile with zeros around it, which is what a `BlockRing` holds a few rows of; or without.
template <class T>
class Tile {
 public:
  Tile(const Shape& s, bool padded)
      : weights(s, kBlock<T>),
        pad(padded ? s.padding() : 0),
        stride((padded ? round_up(s.w, kPixels) + 2 * pad : s.w) * kBlock<T>),
        places(s.pixels()),
        numbers((s.h + 2 * pad) * stride) {
    for (int64_t i = 0; i < s.pixels(); ++i)
      places[i] = (i / s.w + pad) * stride + (i % s.w + pad) * kBlock<T>;
  }

  // Fills it with a part, which is a whole image, of a contiguous feature map; mean and invstd are
  // null, or the map's.
  template <class S>
  void fill(const Shape& s, const S* map, const Part& part, const T* mean, const T* invstd) {
    constexpr int lanes = kLanes<T>;
    const S* image = map + (part.n * s.c + part.channel) * s.pixels();
    const int last = part.channels - 1;
    for_squares<T>(s, part, [&](int channel, int64_t pixel, int pixels) {
      Vec<T> rows[lanes];
      for (int i = 0; i < lanes; ++i) {
        const int64_t c = std::min(channel + i, last);  // more than there are: the last again
        rows[i] = read<S, T>(image + c * s.pixels() + pixel, pixels);
        if (mean) rows[i] = (rows[i] - mean[part.channel + c]) * invstd[part.channel + c];
      }
      transpose<T>(rows);
      for (int i = 0; i < pixels; ++i) store(&numbers[places[pixel + i] + channel], rows[i]);
    });
  }

  // Calls `finish(channel, position, vector, pixels)` for what it holds of a part: `pixels` values
  // of a channel, and where they are in a contiguous feature map.
  template <class Finish>
  void empty(const Shape& s, const Part& part, Finish finish) const {
    constexpr int lanes = kLanes<T>;
    const int64_t start = (part.n * s.c + part.channel) * s.pixels();
    for_squares<T>(s, part, [&](int channel, int64_t pixel, int pixels) {
      Vec<T> rows[lanes];
      for (int i = 0; i < lanes; ++i)
        rows[i] = load(&numbers[places[std::min<int64_t>(pixel + i, s.pixels() - 1)] + channel]);
      transpose<T>(rows);
      const int count = std::min(lanes, part.channels - channel);
      for (int i = 0; i < count; ++i)
        finish(part.channel + channel + i, start + (channel + i) * s.pixels() + pixel, rows[i],
               pixels);
    });
  }

  T* data() { return numbers.data(); }

  BlockWeights<T> weights;

  // As `BlockRing`; all rows are there.
  template <class... Anything>
  void begin(const Anything&...) {}
  void load_until(int64_t) {}
  const T* row(int64_t index) const { return &numbers[(index + pad) * stride]; }

 private:
  const int64_t pad, stride;
  std::vector<int64_t> places;
  Buffer<T> numbers;
};

// Room for one tile's pass: what is convolved, and what comes of it or is multiplied with it.
template <class T>
struct Tiles {
  Tile<T> padded, plain;
  explicit Tiles(const Shape& s) : padded(s, true), plain(s, false) {}
};

// The feature map that a tile is for the functions of blocks.h, and the part that is all of it.
template <class T>
inline Shape shape_of_tile(const Shape& s) {
  return {1, kBlock<T>, s.h, s.w, s.k, s.dilation};
}
inline Part part_of_tile(const Shape& s, const Part& part) {
  return {0, 0, s.h, 0, s.w, 0, part.channels, part.block};
}

template <int K, class S, class T>
void forward_tile(const Shape& s, const Forward<S, T>& f, const Part& part, Tiles<T>& tiles) {
  tiles.padded.fill(s, f.x, part, f.mean, f.invstd);
  Forward<T, T> tile{};
  tile.y = tiles.plain.data();
  tile.weight = f.weight + part.channel * s.k * s.k;
  tile.bias = f.bias + part.channel;
  forward_part<K>(shape_of_tile<T>(s), tile, part_of_tile(s, part), tiles.padded);
  tiles.plain.empty(s, part, [&](int64_t, int64_t at, Vec<T> v, int pixels) {
    if (f.residual) v += read<S, T>(f.residual + at, pixels);
    if (f.relu) v = v < 0 ? Vec<T>{} : v;
    write<S, T>(f.y + at, v, pixels);
  });
}

template <int K, class S, class T>
void reduce_tile(const Shape& s, const Backward<S, T>& b, const Part& part, Tiles<T>& tiles,
                 BlockSums<T>& total) {
  tiles.padded.fill(s, b.x, part, b.mean, b.invstd);
  tiles.plain.template fill<S>(s, b.grad, part, nullptr, nullptr);
  Backward<T, T> tile{};
  tile.grad = tiles.plain.data();
  reduce_part<K>(shape_of_tile<T>(s), tile, part_of_tile(s, part), tiles.padded, total);
}

template <int K, class S, class T>
void input_tile(const Shape& s, const Backward<S, T>& b, const Part& part, Tiles<T>& tiles,
                bool frozen) {
  tiles.padded.template fill<S>(s, b.grad, part, nullptr, nullptr);
  Backward<T, T> tile{};
  tile.grad_x = tiles.plain.data();
  tile.weight = b.weight + part.channel * s.k * s.k;
  tile.invstd = b.invstd + part.channel;
  input_part<K>(shape_of_tile<T>(s), tile, part_of_tile(s, part), tiles.padded, true);
  tiles.plain.empty(s, part, [&](int64_t c, int64_t at, Vec<T> v, int pixels) {
    if (!frozen) {
      const T constant = b.mean_dy[c] * b.invstd[c];
      const T slope = b.mean_dy_xmu[c] * b.invstd[c] * b.invstd[c];
      v -= constant + (read<S, T>(b.x + at, pixels) - b.mean[c]) * slope;
    }
    write<S, T>(b.grad_x + at, v, pixels);
  });
}

}  // namespace bnet
