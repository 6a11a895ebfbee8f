// Storage types, accumulate types, and vectors of the latter.
#pragma once

#ifdef __F16C__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace bnet {

// The registers' width in bytes; each library of setup.py is compiled for one instruction set.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

// Values in a vector.
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
inline Vec<T> broadcast(T value) {
  return value - Vec<T>{};  // not a sum, which would make 0 of -0
}

template <class T>
inline double sum(Vec<T> v) {
  T numbers[kLanes<T>];
  store(numbers, v);
  for (int half = kLanes<T> / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) numbers[i] += numbers[i + half];
  return numbers[0];
}

// Every other value is from `b`; of both the first half, or the second.
template <class T, bool second, std::size_t... i>
inline Vec<T> interleave(Vec<T> a, Vec<T> b, std::index_sequence<i...>) {
  constexpr int from = second ? kLanes<T> / 2 : 0;
#ifdef __clang__
  return __builtin_shufflevector(a, b, (from + int(i) / 2 + int(i) % 2 * kLanes<T>)...);
#else
  using Indices = decltype(a < b);
  return __builtin_shuffle(a, b, Indices{(from + int(i) / 2 + int(i) % 2 * kLanes<T>)...});
#endif
}

// Rows and columns of a square of vectors change places.
template <class T>
inline void transpose(Vec<T> (&rows)[kLanes<T>]) {
  constexpr int lanes = kLanes<T>;
  constexpr auto all = std::make_index_sequence<std::size_t(lanes)>{};
  for (int done = 1; done < lanes; done *= 2) {
    Vec<T> next[lanes];
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = interleave<T, false>(rows[i], rows[i + lanes / 2], all);
      next[2 * i + 1] = interleave<T, true>(rows[i], rows[i + lanes / 2], all);
    }
    for (int i = 0; i < lanes; ++i) rows[i] = next[i];
  }
}

// Zeros from the start of a cache line on: a vector that lies in two lines takes twice the time.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t size) : numbers(size + kLine / sizeof(T)) {
    const auto misplaced = reinterpret_cast<std::uintptr_t>(numbers.data()) % kLine;
    start = numbers.data() + (misplaced ? (kLine - misplaced) / sizeof(T) : 0);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return start; }
  const T* data() const { return start; }
  T& operator[](int64_t i) { return start[i]; }
  const T& operator[](int64_t i) const { return start[i]; }
  void fill(T value) { std::fill(numbers.begin(), numbers.end(), value); }

 private:
  static constexpr int64_t kLine = 64;
  std::vector<T> numbers;
  T* start;
};

inline int64_t round_up(int64_t size, int64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

struct BFloat16 {
  uint16_t bits;
};

inline float to_number(float value) { return value; }
inline double to_number(double value) { return value; }
inline float to_number(BFloat16 value) {
  const uint32_t bits = uint32_t(value.bits) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof number);
  return number;
}

inline void from_number(float number, float* to) { *to = number; }
inline void from_number(double number, double* to) { *to = number; }
inline void from_number(float number, BFloat16* to) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  to->bits = number != number ? 0x7fc0 : uint16_t(rounded);
}

#ifdef __FLT16_MAX__
using Half = _Float16;
#ifdef __F16C__
// By the instruction, and not by a cast: GCC makes of a cast to float and on to double a call of a
// function that only its own newest runtime library has.
inline float to_number(Half value) {
  uint16_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return _cvtsh_ss(bits);
}
#else
inline float to_number(Half value) { return float(value); }
#endif
inline void from_number(float number, Half* to) { *to = Half(number); }
#endif

// bfloat16 by vectors: compilers do not make them of the conversions above.
inline Vec<float> widened(const BFloat16* from) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  Vec<float> v;
  std::memcpy(&v, &words, sizeof v);
  return v;
}
inline void narrow(Vec<float> v, BFloat16* to) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
  typedef uint32_t Words __attribute__((vector_size(kVectorBytes)));
  Words words;
  std::memcpy(&words, &v, sizeof words);
  const Words rounded = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const Words written = v != v ? Words{} + 0x7fc0 : rounded;
  const Halves halves = __builtin_convertvector(written, Halves);
  std::memcpy(to, &halves, sizeof halves);
}

// Writes or reads up to a vector of contiguous values in their storage type.
template <class S, class T>
inline void write(S* to, Vec<T> v, int numbers) {
  if constexpr (std::is_same_v<S, BFloat16>)
    if (numbers == kLanes<T>) return narrow(v, to);
  T values[kLanes<T>];
  store(values, v);
  if (numbers == kLanes<T>) {
    for (int i = 0; i < kLanes<T>; ++i) from_number(values[i], to + i);
  } else {
    for (int i = 0; i < numbers; ++i) from_number(values[i], to + i);
  }
}

template <class S, class T>
inline Vec<T> read(const S* from, int numbers) {
  if constexpr (std::is_same_v<S, BFloat16>)
    if (numbers == kLanes<T>) return widened(from);
  T values[kLanes<T>] = {};
  if (numbers == kLanes<T>) {
    for (int i = 0; i < kLanes<T>; ++i) values[i] = to_number(from[i]);
  } else {
    for (int i = 0; i < numbers; ++i) values[i] = to_number(from[i]);
  }
  return load(values);
}

// The accumulate type of a storage type.
template <class S>
struct NumberOf {
  typedef float type;
};
template <>
struct NumberOf<double> {
  typedef double type;
};

}  // namespace bnet
