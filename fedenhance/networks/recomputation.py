"""Operations whose inputs are computed again for the gradients instead of being kept.

What is cheap to compute, such as a normalisation or a product, need not wait in memory
for the backward pass. As with :mod:`fedenhance.networks.fused`, this is for float32 on
a CPU; elsewhere everything is kept. Outputs and gradients do not change by it.
"""

from functools import partial

import torch

from fedenhance.networks import fused


def forgetting(operation, y, again):
    """Apply an operation that computes its input again instead of keeping it.

    Arguments
    ---------
    operation : Callable
        Of one tensor.
    y : torch.Tensor
        Its input, any shape.
    again : Callable
        Computes ``y`` once more.

    Returns
    -------
    torch.Tensor
        Of the operation.

    Example
    -------
    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> y = forgetting(torch.square, x + 1, lambda: x.detach() + 1)
    >>> torch.autograd.grad(y.sum(), x)
    (tensor([4., 6.]),)
    """
    # The hooks outlive this call, and shall not hold y.
    address, strides = y.untyped_storage().data_ptr(), y.stride()

    def pack(kept):
        of_y = kept.untyped_storage().data_ptr() == address
        return (kept.shape, kept.stride(), kept.storage_offset()) if of_y else kept

    def unpack(kept):
        if isinstance(kept, torch.Tensor):
            return kept
        found = again()
        if found.stride() != strides:
            found = torch.empty_strided(found.shape, strides).copy_(found)
        return found.as_strided(*kept)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return operation(y)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, masks, latent):
        ctx.save_for_backward(masks, latent)
        return masks * latent

    @staticmethod
    def backward(ctx, grad):
        masks, latent = ctx.saved_tensors
        # Source by source: a sum over their axis would first write all products.
        grad_latent = grad[0] * masks[0]
        for grad_source, mask in zip(grad[1:], masks[1:], strict=True):
            grad_latent += grad_source * mask
        return grad * latent, grad_latent


def masked_then(operation, masks, latent):
    """Apply masks to a latent, and an operation to what comes out.

    Arguments
    ---------
    operation : Callable
        Of latents, ``(source, batch, channel, frame)``, which it does not keep.
    masks : torch.Tensor
        ``(source, batch, channel, frame)``.
    latent : torch.Tensor
        ``(batch, channel, frame)``, or of 1 channel for all of the masks'.

    Returns
    -------
    torch.Tensor
        Of the operation.

    Example
    -------
    >>> masked_then(torch.neg, torch.ones(2, 1, 1, 3), torch.arange(3.0).view(1, 1, 3))
    tensor([[[[-0., -1., -2.]]],
    <BLANKLINE>
    <BLANKLINE>
            [[[-0., -1., -2.]]]])
    """
    same_shape = latent.shape == masks.shape[1:]
    if not (same_shape and fused.enabled(masks) and torch.is_grad_enabled()):
        return operation(masks * latent)
    y = _Product.apply(masks, latent)
    again = partial(torch.mul, masks.detach(), latent.detach())
    return forgetting(operation, y, again)


class _Framewise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, num_frames, x, *weights):
        ctx.function, ctx.num_frames = function, num_frames
        ctx.save_for_backward(x, *weights)
        rows = [function(row, *weights) for row in x.flatten(0, 1).split(num_frames)]
        return torch.cat(rows).unflatten(0, x.shape[:2])

    @staticmethod
    def backward(ctx, grad):
        x, *weights = (t.detach().requires_grad_() for t in ctx.saved_tensors)
        grad_x, grad_weights = [], None
        rows, grads_y = (t.flatten(0, 1).split(ctx.num_frames) for t in (x, grad))
        for row, grad_row in zip(rows, grads_y, strict=True):
            with torch.enable_grad():
                row = row.detach().requires_grad_()
                y = ctx.function(row, *weights)
            grad_row, *grads = torch.autograd.grad(y, (row, *weights), grad_row)
            grad_x.append(grad_row)
            if grad_weights is None:
                grad_weights = grads
            else:
                torch._foreach_add_(grad_weights, grads)
        return None, None, torch.cat(grad_x).view_as(x), *grad_weights


def framewise(function, x, *weights, num_frames=1024):
    """Apply a function of single frames to a few frames at a time.

    Its intermediate results stay in the processor's cache, and are computed again for
    the gradients instead of being kept.

    Arguments
    ---------
    function : Callable
        Maps frames ``(frame, ...)`` and ``weights`` to as many frames.
    x : torch.Tensor
        Input, ``(batch, frame, ...)``.
    *weights : torch.Tensor
        Further arguments of the function.
    num_frames : int
        Frames at a time.

    Returns
    -------
    torch.Tensor
        Output, ``(batch, frame, ...)``.

    Example
    -------
    >>> framewise(torch.mul, torch.ones(1, 2, 3), torch.tensor(2.0))
    tensor([[[2., 2., 2.],
             [2., 2., 2.]]])
    """
    if fused.enabled(x):
        return _Framewise.apply(function, num_frames, x, *weights)
    return function(x.flatten(0, 1), *weights).unflatten(0, x.shape[:2])
