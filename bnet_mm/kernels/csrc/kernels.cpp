// The back end of one instruction set of a CPU: its C interface, which needs neither torch nor
// Python, and the choice of the code for a type and a kernel size.
//
// Every function takes one `Call`: the sizes n, c, h, w of the feature map; k and dilation; the
// storage type of feature maps (0 float32, 1 float64, 2 bfloat16, 3 float16); whether they are
// channels_last; and the number of threads; tensors. Statistics, kernels and biases are float32,
// with float64 feature maps float64. Sums are taken in an order that does not depend on the number
// of threads. Returns 0, or 1 for an unknown type.
#include <cmath>
#include <cstdlib>
#include <type_traits>
#include <vector>

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

using namespace bnet;

// The arguments of a function, each of 8 bytes; tensors in the order that its comment names.
struct Call {
  int64_t n, c, h, w, k, dilation, type, channels_last, threads;
  void* tensors[11];
  int64_t flags;
  double eps;

  Shape shape() const { return {n, c, h, w, int(k), int(dilation)}; }
  template <class T>
  T* tensor(int i) const {
    return static_cast<T*>(tensors[i]);
  }
};

enum ForwardFlags { kRelu = 1, kVariance = 2 };

// x, residual, y, weight, bias, mean, and `invstd`, which is the tensor of that number.
template <class S, class T>
Forward<S, T> forward_of(const Call& call, int invstd) {
  return {call.tensor<S>(0), call.tensor<S>(1), call.tensor<S>(2),      call.tensor<T>(3),
          call.tensor<T>(4), call.tensor<T>(5), call.tensor<T>(invstd), bool(call.flags & kRelu)};
}

// Mean and biased variance of each channel. Tensors: x, mean, var.
BNET_API int bnet_statistics(const Call* call) {
  return with_type(int(call->type), [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    statistics<S, T>(call->shape(), call->channels_last, call->tensor<S>(0), call->tensor<T>(1),
                     call->tensor<T>(2), int(call->threads));
  });
}

// Normalizes (unless `mean` is null), applies the kernel and its bias, adds `residual` (or null)
// and applies a ReLU. Tensors: x, residual, y, weight, bias, mean, invstd. `flags`: 1 for the ReLU,
// 2 where the variance stands for invstd.
BNET_API int bnet_forward(const Call* call) {
  return with_type(int(call->type), [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    Forward<S, T> f = forward_of<S, T>(*call, 6);
    std::vector<T> invstd(call->flags & kVariance ? call->c : 0);
    if (!invstd.empty()) {
      // As torch computes it where a gradient is wanted.
      for (int64_t c = 0; c < call->c; ++c)
        invstd[c] = T(1) / std::sqrt(f.invstd[c] + T(call->eps));
      f.invstd = invstd.data();
    }
    with_size(int(call->k), [&](auto size) {
      forward<size.value>(call->shape(), call->channels_last, f, int(call->threads));
    });
  });
}

// The same with the batch's own statistics, which it writes. Tensors: x, residual, y, weight, bias,
// mean, var, invstd.
BNET_API int bnet_forward_training(const Call* call) {
  return with_type(int(call->type), [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    const Forward<S, T> f = forward_of<S, T>(*call, 7);
    with_size(int(call->k), [&](auto size) {
      forward_training<size.value>(call->shape(), call->channels_last, f, call->tensor<T>(5),
                                   call->tensor<T>(6), call->tensor<T>(7), call->eps,
                                   int(call->threads));
    });
  });
}

// `flags`: 1 for the gradients of kernel and bias, 2 for the input's, 4 for frozen statistics.
// With 2 alone `mean_dy` and `mean_dy_xmu` are read, with 3 they come from the first pass. Tensors:
// grad, x, grad_x, weight, mean, invstd, mean_dy, mean_dy_xmu, grad_weight, grad_bias, sum_dy.
BNET_API int bnet_backward(const Call* call) {
  return with_type(int(call->type), [&](auto storage) {
    using S = decltype(storage);
    using T = typename NumberOf<S>::type;
    const Backward<S, T> b{call->tensor<S>(0), call->tensor<S>(1), call->tensor<S>(2),
                           call->tensor<T>(3), call->tensor<T>(4), call->tensor<T>(5),
                           call->tensor<T>(6), call->tensor<T>(7), call->tensor<T>(8),
                           call->tensor<T>(9), call->tensor<T>(10)};
    with_size(int(call->k), [&](auto size) {
      backward<size.value>(call->shape(), call->channels_last, b, int(call->flags),
                           int(call->threads));
    });
  });
}
