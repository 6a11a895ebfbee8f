// The back end of one instruction set of a CPU: its C interface, which needs neither torch nor
// Python, and the choice of the code for a type and a kernel size.
//
// Every function takes: the sizes n, c, h, w of the feature map; k and dilation; the storage type
// of feature maps (0 float32, 1 float64, 2 bfloat16, 3 float16); whether they are channels_last;
// and the number of threads. Statistics, kernels and biases are float32, with float64 feature maps
// float64. Sums are taken in an order that does not depend on the number of threads. Returns 0, or
// 1 for an unknown type.
#include <cstdlib>
#include <type_traits>

#include "passes.h"

#if defined(__GLIBCXX__)
// What a vector calls where its size would overflow. It is in libstdc++ since GCC 11, and this
// library shall load with older ones: sizes are those of tensors that are there already.
namespace std {
[[noreturn]] __attribute__((visibility("hidden"))) void __throw_bad_array_new_length() { abort(); }
}  // namespace std
#endif

namespace bnet {

// Calls `run` with a kernel size that the compiler knows, where it is one of the paper's.
template <class Run>
void with_size(int k, Run run) {
  switch (k) {
    case 1:
      return run(std::integral_constant<int, 1>{});
    case 3:
      return run(std::integral_constant<int, 3>{});
    case 5:
      return run(std::integral_constant<int, 5>{});
    case 7:
      return run(std::integral_constant<int, 7>{});
    default:
      return run(std::integral_constant<int, 0>{});
  }
}

// Calls `run` with a value of the storage type.
template <class Run>
int with_type(int type, Run run) {
  switch (type) {
    case 0:
      run(float{});
      return 0;
    case 1:
      run(double{});
      return 0;
    case 2:
      run(BFloat16{});
      return 0;
#ifdef __FLT16_MAX__
    case 3:
      run(Half{});
      return 0;
#endif
    default:
      return 1;
  }
}

}  // namespace bnet

#ifdef _WIN32
#define BNET_API extern "C" __declspec(dllexport)
#else
#define BNET_API extern "C" __attribute__((visibility("default")))
#endif

#define BNET_SIZES                                                                              \
  int64_t n, int64_t c, int64_t h, int64_t w, int k, int dilation, int type, int channels_last, \
      int threads

using namespace bnet;

// Mean and biased variance of each channel.
BNET_API int bnet_statistics(BNET_SIZES, const void* x, void* mean, void* var) {
  const Shape s{n, c, h, w, k, dilation};
  return with_type(type, [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    statistics<S, T>(s, channels_last, static_cast<const S*>(x), static_cast<T*>(mean),
                     static_cast<T*>(var), threads);
  });
}

// Normalizes (unless `mean` is null), applies the kernel and its bias, adds `residual` (or null)
// and applies a ReLU if `relu`.
BNET_API int bnet_forward(BNET_SIZES, const void* x, const void* residual, void* y,
                          const void* weight, const void* bias, const void* mean,
                          const void* invstd, int relu) {
  const Shape s{n, c, h, w, k, dilation};
  return with_type(type, [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    const Forward<S, T> f{static_cast<const S*>(x),
                          static_cast<const S*>(residual),
                          static_cast<S*>(y),
                          static_cast<const T*>(weight),
                          static_cast<const T*>(bias),
                          static_cast<const T*>(mean),
                          static_cast<const T*>(invstd),
                          bool(relu)};
    with_size(k, [&](auto size) { forward<size.value>(s, channels_last, f, threads); });
  });
}

// The same with the batch's own statistics, which it writes to `mean`, `var` and `invstd`.
BNET_API int bnet_forward_training(BNET_SIZES, const void* x, const void* residual, void* y,
                                   const void* weight, const void* bias, void* mean, void* var,
                                   void* invstd, int relu, double eps) {
  const Shape s{n, c, h, w, k, dilation};
  return with_type(type, [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    const Forward<S, T> f{static_cast<const S*>(x),
                          static_cast<const S*>(residual),
                          static_cast<S*>(y),
                          static_cast<const T*>(weight),
                          static_cast<const T*>(bias),
                          static_cast<const T*>(mean),
                          static_cast<const T*>(invstd),
                          bool(relu)};
    with_size(k, [&](auto size) {
      forward_training<size.value>(s, channels_last, f, static_cast<T*>(mean), static_cast<T*>(var),
                                   static_cast<T*>(invstd), eps, threads);
    });
  });
}

// `passes`: 1 for the gradients of kernel and bias, 2 for the input's, 4 for frozen statistics.
// With 2 alone `mean_dy` and `mean_dy_xmu` are read, with 3 they come from the first pass.
BNET_API int bnet_backward(BNET_SIZES, const void* grad, const void* x, void* grad_x,
                           const void* weight, const void* mean, const void* invstd,
                           const void* mean_dy, const void* mean_dy_xmu, void* grad_weight,
                           void* grad_bias, void* sum_dy, int passes) {
  const Shape s{n, c, h, w, k, dilation};
  return with_type(type, [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    const Backward<S, T> b{static_cast<const S*>(grad),    static_cast<const S*>(x),
                           static_cast<S*>(grad_x),        static_cast<const T*>(weight),
                           static_cast<const T*>(mean),    static_cast<const T*>(invstd),
                           static_cast<const T*>(mean_dy), static_cast<const T*>(mean_dy_xmu),
                           static_cast<T*>(grad_weight),   static_cast<T*>(grad_bias),
                           static_cast<T*>(sum_dy)};
    with_size(k, [&](auto size) { backward<size.value>(s, channels_last, b, passes, threads); });
  });
}
