"""Operations whose gradients cost less time and memory than PyTorch's own on a CPU.

They compute what the PyTorch operations named in their docstrings compute, on tensors
``(batch, frame, channel)``: with channels last, a 1x1 convolution is a matrix product,
and depthwise convolutions and group normalisation need no reordering. Each is used for
float32 on a CPU only; elsewhere, under autocast and in compiled code, the PyTorch
operations run, but for the normalisation of few groups on a GPU.
``benchmarks/networks.py`` measures the difference.
"""

from functools import partial

import torch
import torch.nn.functional as F


def enabled(x, device="cpu"):
    """Return whether ``x`` is plain float32 on a kind of device, by default a CPU."""
    return (
        x.device.type == device
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled(device)
        and not torch.compiler.is_compiling()
    )


def _prelu_(x, slope):
    """Apply PReLU in place."""
    if slope.numel() == 1:
        return F.leaky_relu_(x, slope.item())
    return torch.lerp(x.clamp(min=0), x, slope, out=x)


def _prelu_backward(grad, x, slope):
    """Return the gradients of PReLU's input and slope; overwrites ``x``."""
    if slope.numel() == 1:
        grad_x = torch.ops.aten.leaky_relu_backward(grad, x, slope.item(), False)
        grad_slope = torch.dot(grad.flatten(), x.clamp_(max=0).flatten())
        return grad_x, grad_slope.view(1)
    positive = torch.ops.aten.threshold_backward(grad, x, 0)
    grad_slope = x.clamp_(max=0).mul_(grad).flatten(0, -2).sum(0)
    return torch.lerp(positive, grad, slope), grad_slope


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, slope):
        ctx.save_for_backward(x, slope)
        return _prelu_(x.clone(), slope)

    @staticmethod
    def backward(ctx, grad):
        x, slope = ctx.saved_tensors
        return _prelu_backward(grad.contiguous(), x.clone(), slope)


def prelu(x, slope):
    """Apply PReLU, as :func:`torch.nn.functional.prelu` does along the last axis.

    Arguments
    ---------
    x : torch.Tensor
        Input, ``(..., channel)``.
    slope : torch.Tensor
        One slope, or one for each channel.

    Returns
    -------
    torch.Tensor
        As ``x``.

    Example
    -------
    >>> prelu(torch.tensor([[2.0, -2.0]]), torch.tensor([0.25]))
    tensor([[ 2.0000, -0.5000]])
    """
    if enabled(x):
        return _PReLU.apply(x, slope)
    slope = slope.to(x.dtype)
    if slope.numel() == 1:
        return F.prelu(x, slope)
    return F.prelu(x.movedim(-1, 1), slope).movedim(1, -1)


def _by_group(x, num_groups):
    """Map ``(batch, frame, channel)`` to ``(batch * group, channel / group, frame)``.

    Groups that share weights are examples of a batch; nothing is copied where channels
    lie before frames in memory, as PyTorch's operations leave them.
    """
    return x.transpose(1, 2).unflatten(1, (num_groups, -1)).flatten(0, 1)


def _join_groups(x, num_groups):
    """Undo :func:`_by_group`."""
    return x.unflatten(0, (-1, num_groups)).flatten(1, 2).transpose(1, 2)


def _to_image(x, time_axis=3):
    """View ``(batch, frame, channel)`` as an image whose rows or columns are time.

    Its strides are those of PyTorch's channels last format, which ``transpose`` and
    ``unsqueeze`` at the end would miss, and oneDNN would copy it.
    """
    return x.unsqueeze(4 - time_axis).permute(0, 3, 1, 2)


def _from_image(x):
    """View ``(batch, channel, 1, frame)`` as ``(batch, frame, channel)``."""
    return x.permute(0, 2, 3, 1).squeeze(1)


class _GroupNormPReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, slope, num_groups, eps):
        batch, frames, channels = x.shape
        ctx.sizes = batch, channels, frames, num_groups
        y, mean, rstd = torch.native_group_norm(
            _to_image(x), weight, bias, *ctx.sizes, eps
        )
        ctx.save_for_backward(x, weight, bias, slope, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        y = _from_image(y)
        return y if slope is None else _prelu_(y, slope), mean, rstd

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, bias, slope, mean, rstd = ctx.saved_tensors
        batch, channels, _, num_groups = ctx.sizes
        grad = grad.contiguous()
        grad_slope = None
        if slope is not None:
            per_channel = (batch, 1, num_groups, channels // num_groups)
            scale = rstd.view(batch, 1, -1, 1) * weight.view(num_groups, -1)
            shift = bias.view(num_groups, -1) - mean.view(batch, 1, -1, 1) * scale
            scale, shift = (p.expand(per_channel).flatten(2) for p in (scale, shift))
            grad, grad_slope = _prelu_backward(
                grad, torch.addcmul(shift, x, scale), slope
            )
        images = _to_image(grad), _to_image(x)
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_group_norm_backward(
            *images, mean, rstd, weight, *ctx.sizes, [True, True, True]
        )
        grad_x = _from_image(grad_x)
        return grad_x, grad_weight, grad_bias, grad_slope, None, None


class _NormOfFew(torch.autograd.Function):
    # PyTorch sums up each group in one block of a GPU's threads, so that a few groups
    # keep a few blocks busy; var_mean spreads over the GPU.

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        x = x.contiguous()
        variance, mean = torch.var_mean(x.flatten(1), 1, correction=0)
        rstd = (variance + eps).rsqrt()
        scale = rstd.unsqueeze(1) * weight
        shift = bias - mean.unsqueeze(1) * scale
        ctx.save_for_backward(x, weight, mean.unsqueeze(1), rstd.unsqueeze(1))
        return torch.addcmul(shift.unsqueeze(2), x, scale.unsqueeze(2))

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, rstd = ctx.saved_tensors
        grads = torch.ops.aten.native_group_norm_backward(
            grad.contiguous(), x, mean, rstd, weight, *x.shape, 1, [True, True, True]
        )
        return *grads, None


def _few_on_gpu(x):
    """Whether there are too few groups, ``(group, channel, frame)``, for a GPU."""
    return len(x) < 64 and enabled(x, "cuda")


def group_norm(x, weight, bias, slope=None, num_groups=1, eps=1e-8):
    """Normalise groups of channels, then apply PReLU.

    The groups share the weights, as in :func:`torch.nn.functional.group_norm` of each
    group by itself, and so does :func:`torch.nn.functional.prelu`. Instead of the
    normalised input, its mean and deviation are kept for the gradients.

    Arguments
    ---------
    x : torch.Tensor
        Input, ``(batch, frame, channel)``.
    weight : torch.Tensor
        Weight of each channel of a group.
    bias : torch.Tensor
        Bias of each channel of a group.
    slope : torch.Tensor, optional
        PReLU's slope: one, or (with one group) one for each channel.
    num_groups : int
        Groups of channels.
    eps : float
        Added to the variance.

    Returns
    -------
    torch.Tensor
        As ``x``.

    Example
    -------
    >>> x = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]])
    >>> group_norm(x, torch.ones(2), torch.zeros(2), slope=torch.tensor([0.5]))
    tensor([[[-0.5000,  1.0000],
             [-0.5000,  1.0000]]])
    """
    if enabled(x):
        weight, bias = weight.repeat(num_groups), bias.repeat(num_groups)
        return _GroupNormPReLU.apply(x, weight, bias, slope, num_groups, eps)[0]
    groups = _by_group(x, num_groups)
    if _few_on_gpu(groups):
        y = _NormOfFew.apply(groups, weight, bias, eps)
    else:
        y = F.group_norm(groups, 1, weight, bias, eps)
    y = y if slope is None else F.prelu(y, slope.to(y.dtype))
    return _join_groups(y, num_groups)


def _normalize_again(x, weight, bias, slope, mean, rstd, num_groups):
    """Compute the output of :class:`_GroupNormPReLU` once more."""
    mean, rstd = (p.view(len(x), 1, num_groups, 1) for p in (mean, rstd))
    scale = rstd * weight.view(num_groups, -1)
    # As PyTorch's kernel, and so to the bit: product and sum are rounded together.
    shift = torch.addcmul(bias.view(num_groups, -1), mean, scale, value=-1)
    y = torch.addcmul(shift.flatten(2), x, scale.flatten(2))
    return y if slope is None else _prelu_(y, slope)


def recomputable_group_norm(x, weight, bias, slope=None, num_groups=1, eps=1e-8):
    """Normalise as :func:`group_norm`, where :func:`enabled`; say how to do it again.

    Returns
    -------
    y : torch.Tensor
    again : Callable
        Computes ``y`` once more, from mean and deviation, which are kept.
    """
    inputs = x, weight.repeat(num_groups), bias.repeat(num_groups), slope
    y, mean, rstd = _GroupNormPReLU.apply(*inputs, num_groups, eps)
    inputs = (None if tensor is None else tensor.detach() for tensor in inputs)
    return y, partial(_normalize_again, *inputs, mean, rstd, num_groups)


class _DepthwiseConv(torch.autograd.Function):
    # oneDNN's kernels are fast when a row of its images is the time axis, but for the
    # gradient of the weights, where a column must be.

    @staticmethod
    def forward(ctx, x, weight, bias, stride, padding):
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry = (1, stride), (0, padding), (1, 1)
        image = _to_image(x)
        y = F.conv2d(image, weight.unsqueeze(2), bias, *geometry, groups=len(weight))
        return _from_image(y)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        channels = x.shape[-1]
        grad = grad.contiguous()

        def gradients(time_axis, mask):
            images = _to_image(grad, time_axis), _to_image(x, time_axis)
            filters = weight.unsqueeze(5 - time_axis)
            geometry = (pair if time_axis == 3 else pair[::-1] for pair in ctx.geometry)
            return torch.ops.aten.convolution_backward(
                *images, filters, [channels], *geometry, False, [0, 0], channels, mask
            )

        grad_x, _, _ = gradients(3, [True, False, False])
        _, grad_weight, grad_bias = gradients(2, [False, True, True])
        grad_x = _from_image(grad_x)
        return grad_x, grad_weight.squeeze(3), grad_bias, None, None


def depthwise_conv(x, weight, bias, stride=1, padding=0, num_groups=1):
    """Convolve each channel of a group with its own filter along the frames.

    Arguments
    ---------
    x : torch.Tensor
        Input, ``(batch, frame, channel)``.
    weight : torch.Tensor
        Filters, ``(channel / num_groups, 1, tap)``.
    bias : torch.Tensor
        Bias of each filter.
    stride : int
        Hop of the output's frames.
    padding : int
        Zeros before and after the frames.
    num_groups : int
        Groups of channels, which share the filters.

    Returns
    -------
    torch.Tensor
        Output, ``(batch, frame, channel)``.

    Example
    -------
    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> depthwise_conv(x, torch.tensor([[[1.0, 1.0]]]), torch.zeros(1)).flatten()
    tensor([3., 5.])
    """
    if enabled(x):
        weight, bias = weight.repeat(num_groups, 1, 1), bias.repeat(num_groups)
        return _DepthwiseConv.apply(x, weight, bias, stride, padding)
    groups = _by_group(x, num_groups)
    y = F.conv1d(groups, weight, bias, stride, padding, groups=len(weight))
    return _join_groups(y, num_groups)


class _UpsampleAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, coarse, fine):
        return (fine.unflatten(1, (-1, 2)) + coarse.unsqueeze(2)).view_as(fine)

    @staticmethod
    def backward(ctx, grad):
        pairs = grad.unflatten(1, (-1, 2))
        return pairs[:, :, 0] + pairs[:, :, 1], grad


def upsample_add(coarse, fine):
    """Repeat every frame of one input and add the other.

    Arguments
    ---------
    coarse : torch.Tensor
        ``(batch, frame, channel)``.
    fine : torch.Tensor
        ``(batch, 2 * frame, channel)``.

    Returns
    -------
    torch.Tensor
        As ``fine``.

    Example
    -------
    >>> coarse, fine = torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 4, 1)
    >>> upsample_add(coarse, fine).flatten()
    tensor([1., 1., 2., 2.])
    """
    return _UpsampleAdd.apply(coarse, fine)
