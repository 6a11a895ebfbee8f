// The arguments of a pass: sizes, inputs and outputs.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace bnet {

// Sizes of a feature map of N x C x H x W and of its k x k kernels.
struct Shape {
  int64_t n, c, h, w;
  int k, dilation;

  int64_t padding() const { return int64_t(dilation) * (k / 2); }
  int64_t pixels() const { return h * w; }
};

// The last step of a forward pass. `mean` and `invstd` are null for a feature map that is
// normalized already.
template <class S, class T>
struct Forward {
  const S *x, *residual;  // residual: null, or what is added to the output
  S* y;
  const T *weight, *bias, *mean, *invstd;
  bool relu;
};

// A backward pass. `mean_dy` and `mean_dy_xmu` are the means over a channel of dy, the gradient of
// the normalized feature map x_hat, and of dy * x_hat; null for frozen statistics.
template <class S, class T>
struct Backward {
  const S *grad, *x;
  S* grad_x;
  const T *weight, *mean, *invstd, *mean_dy, *mean_dy_xmu;
  T *grad_weight, *grad_bias, *sum_dy;
};

// Rows [first, last) of the kernel whose taps fall inside the feature map, seen from `row`.
struct Rows {
  int first, last;
  Rows(const Shape& s, int64_t row) : first(0), last(s.k) {
    while (first < s.k && row + int64_t(first) * s.dilation < s.padding()) ++first;
    while (last > first && row + int64_t(last - 1) * s.dilation - s.padding() >= s.h) --last;
  }
};

}  // namespace bnet
