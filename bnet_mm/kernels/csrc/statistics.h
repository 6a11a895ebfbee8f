// Mean and variance of channels: of a contiguous feature map channel by channel, of a channels_last
// one over runs of pixels.
#pragma once

#include <algorithm>
#include <vector>

#include "layer.h"

namespace bnet {

// Sum of a channel's distances from `from`, or of their squares.
template <bool squares, class S, class T>
inline double sum_channel(const Shape& s, const S* x, int64_t c, T from) {
  constexpr int lanes = kLanes<T>, kMany = 4;
  // Sums of so many vectors each, so that rounding does not grow with the feature map.
  constexpr int64_t most = 64;
  const int64_t pixels = s.pixels(), images = s.n, step = s.c * pixels;
  const int64_t whole = pixels / lanes * lanes;
  const int rest = int(pixels - whole);
  T inside[lanes];
  for (int i = 0; i < lanes; ++i) inside[i] = i < rest ? T(1) : T(0);
  const Vec<T> mask = load(inside);
  auto term = [=](Vec<T> v) {
    v -= from;
    return squares ? v * v : v;
  };
  double total = 0;
  Vec<T> sums[kMany] = {};
  int64_t added = 0;
  auto flush = [&] {
    total += sum<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    for (auto& v : sums) v = Vec<T>{};
    added = 0;
  };
  for (int64_t n = 0; n < images; ++n) {
    const S* plane = x + c * pixels + n * step;
    for (int64_t start = 0; start < whole;) {
      const int64_t end = std::min(whole, start + (most - added) * kMany * lanes);
      added += (end - start + kMany * lanes - 1) / (kMany * lanes);
      for (; start + kMany * lanes <= end; start += kMany * lanes)
        for (int v = 0; v < kMany; ++v)
          sums[v] += term(read<S, T>(plane + start + v * lanes, lanes));
      for (int v = 0; start < end; start += lanes, ++v)
        sums[v] += term(read<S, T>(plane + start, lanes));
      if (added >= most) flush();
    }
    if (rest) {
      const Vec<T> v = term(read<S, T>(plane + whole, rest));
      sums[kMany - 1] += mask > 0 ? v : Vec<T>{};
      if (++added >= most) flush();
    }
  }
  flush();
  return total;
}

template <class S, class T>
void statistics_channel(const Shape& s, const S* x, int64_t c, T* mean, T* var) {
  const double count = double(s.n) * s.pixels();
  // Distances from one of the values: what all have in common is not rounded in the sum.
  const T pivot = to_number(x[c * s.pixels()]);
  mean[c] = T(pivot + sum_channel<false, S, T>(s, x, c, pivot) / count);
  var[c] = T(sum_channel<true, S, T>(s, x, c, mean[c]) / count);
}

// Mean, and sum of squared distances from it, of each channel of a channels_last feature map over
// pixels [first, last).
template <class S, class T>
void statistics_pixels(const Shape& s, const S* x, int64_t first, int64_t last, double* mean,
                       double* squares) {
  constexpr int lanes = kLanes<T>;
  const int64_t channels = s.c, whole = channels / lanes * lanes;
  const int rest = int(channels - whole);
  // Pixels of a tile, which is read twice and has to stay in the cache for that.
  const int64_t tile = std::clamp<int64_t>(32768 / channels, 8, 64);
  std::fill(mean, mean + channels, 0.0);
  std::fill(squares, squares + channels, 0.0);
  Buffer<T> numbers(3 * (whole + lanes));
  T *const pivots = numbers.data(), *const means = pivots + whole + lanes;
  T* const distances = means + whole + lanes;
  // Calls `run(c, x)` for the vectors of a pixel, the last of which may be a part of one.
  auto for_vectors = [=](const S* pixel, auto run) {
    for (int64_t c = 0; c < whole; c += lanes) run(c, read<S, T>(pixel + c, lanes));
    if (rest) run(whole, read<S, T>(pixel + whole, rest));
  };
  for (int64_t start = first; start < last; start += tile) {
    const int64_t end = std::min(last, start + tile);
    std::fill(means, distances + whole + lanes, T(0));
    // Distances from the first pixel: what all have in common is not rounded in the sum.
    for_vectors(x + start * channels, [=](int64_t c, Vec<T> v) { store(pivots + c, v); });
    for (int64_t p = start; p < end; ++p)
      for_vectors(x + p * channels, [=](int64_t c, Vec<T> v) {
        store(means + c, load(means + c) + (v - load(pivots + c)));
      });
    const T pixels = T(end - start);
    for (int64_t c = 0; c < channels; ++c) means[c] /= pixels;
    for (int64_t p = start; p < end; ++p)
      for_vectors(x + p * channels, [=](int64_t c, Vec<T> v) {
        const Vec<T> distance = (v - load(pivots + c)) - load(means + c);
        store(distances + c, load(distances + c) + distance * distance);
      });
    // Chan's formula: tiles are joined by their means, raw squares would cancel.
    const double share = double(end - start) / double(end - first);
    const double weight = share * double(start - first);
    for (int64_t c = 0; c < channels; ++c) {
      const double delta = double(pivots[c]) + double(means[c]) - mean[c];
      mean[c] += delta * share;
      squares[c] += distances[c] + delta * delta * weight;
    }
  }
}

}  // namespace bnet
