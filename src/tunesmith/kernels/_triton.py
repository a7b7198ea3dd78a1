"""The kernels, in Triton's language. Only `_launch` imports this module, and only where Triton is installed.

All arrays begin with an axis of members; one that all members share has a single one, and a ``step`` of 0 from one
member to the next. Sizes are known when a kernel is compiled (``tl.constexpr``). A launch has one axis of programs; the
number that changes first is that of the tile. (What Triton itself writes in its language, as ``tl.zeros`` and
``tl.sum``, is not used: then kernels can be interpreted and compiled in one process.)
"""

import triton
import triton.language as tl


@triton.jit
def nothing(source, result):
    """Copies one number: whether Triton and JAX get along is tried with it."""
    tl.store(result, tl.load(source))


# -- convolutions: ``patches`` is a `convolution.Patches`, ``cut`` a `convolution.Cut` ---------------------------------


@triton.jit
def places(row, patches: tl.constexpr):
    """Image, row and group of these rows of the product."""
    inner = row % (patches.down * patches.right)
    return row // (patches.down * patches.right), inner // patches.right, inner % patches.right


@triton.jit
def load_patches(source, row, value, vertical, horizontal, patches: tl.constexpr):
    """[rows, values]: these values of the patches of these rows; zero outside of the image."""
    image, top, left = places(row, patches)
    top = top * patches.stride + (vertical + patches.margin) // patches.phases - (patches.taps - 1)
    left = (
        left * (patches.stride * patches.group) + (horizontal + patches.margin) // patches.phases - (patches.taps - 1)
    )
    tap, channel = value // patches.channels, value % patches.channels
    down, right = tap // patches.across, tap % patches.across
    i, j = top[:, None] + down[None, :], left[:, None] + right[None, :]
    inside = (i >= 0) & (i < patches.height) & (j >= 0) & (j < patches.width)
    inside = inside & (row < patches.rows)[:, None] & (value < patches.depth)[None, :]
    first = ((image * patches.height + top) * patches.width + left) * patches.channels
    further = (down * patches.width + right) * patches.channels + channel
    return tl.load(source + first[:, None] + further[None, :], mask=inside, other=0)


@triton.jit
def results(row, output, vertical, horizontal, patches: tl.constexpr):
    """[rows, outputs]: where these results stand in the target, and whether they do."""
    image, i, left = places(row, patches)
    number, channel = output // patches.target_channels, output % patches.target_channels
    i, left = i * patches.phases + vertical, left * (patches.group * patches.phases) + horizontal
    right = number * patches.phases
    first = ((image * patches.target_height + i) * patches.target_width + left) * patches.target_channels
    inside = ((row < patches.rows) & (i < patches.target_height))[:, None] & (output < patches.outputs)[None, :]
    inside = inside & (left[:, None] + right[None, :] < patches.target_width)
    return first[:, None] + (right * patches.target_channels + channel)[None, :], inside


@triton.jit
def conv_product(
    source,
    matrix,
    result,
    patches: tl.constexpr,
    cut: tl.constexpr,
    source_step: tl.constexpr,
    matrix_step: tl.constexpr,
):
    """The patches times ``matrix`` [members, phase, depth, outputs], which is padded to whole tiles."""
    rows: tl.constexpr = cut.rows
    depth: tl.constexpr = cut.depth
    outputs: tl.constexpr = cut.outputs
    deep: tl.constexpr = cut.deep * cut.depth
    wide: tl.constexpr = cut.across * cut.outputs
    phases: tl.constexpr = patches.phases * patches.phases
    program = tl.program_id(0)
    row = program % cut.down * rows + tl.arange(0, rows)
    program = program // cut.down
    output = program % cut.across * outputs + tl.arange(0, outputs)
    program = program // cut.across
    vertical, horizontal = program % phases // patches.phases, program % patches.phases
    member = (program // phases).to(tl.int64)
    source += member * source_step
    matrix += member * matrix_step + program % phases * (deep * wide)
    result += member * patches.results

    total = tl.full((rows, outputs), 0, tl.float32)
    for start in range(0, deep, depth):
        value = start + tl.arange(0, depth)
        left = load_patches(source, row, value, vertical, horizontal, patches)
        right = tl.load(matrix + value[:, None] * wide + output[None, :])
        total = tl.dot(left, right, total)
    place, inside = results(row, output, vertical, horizontal, patches)
    tl.store(result + place, total.to(result.dtype.element_ty), mask=inside)


@triton.jit
def conv_slope_of_filters(
    source,
    slope,
    part,
    patches: tl.constexpr,
    cut: tl.constexpr,
    source_step: tl.constexpr,
    slope_step: tl.constexpr,
):
    """The transposed patches times ``slope``: [members, parts, values, outputs]; ``cut.down`` tiles of rows a part."""
    rows: tl.constexpr = cut.rows
    depth: tl.constexpr = cut.depth
    outputs: tl.constexpr = cut.outputs
    height: tl.constexpr = cut.down * cut.rows
    wide: tl.constexpr = cut.across * cut.outputs
    program = tl.program_id(0)
    value = program % cut.deep * depth + tl.arange(0, depth)
    program = program // cut.deep
    output = program % cut.across * outputs + tl.arange(0, outputs)
    program = program // cut.across  # counts parts of members
    member = (program // cut.parts).to(tl.int64)
    source += member * source_step
    slope += member * slope_step
    part += program.to(tl.int64) * (cut.deep * cut.depth * wide)

    total = tl.full((depth, outputs), 0, tl.float32)
    first = program % cut.parts * height + tl.arange(0, rows)
    for start in range(0, height, rows):
        left = load_patches(source, first + start, value, 0, 0, patches)
        place, inside = results(first + start, output, 0, 0, patches)
        right = tl.load(slope + place, mask=inside, other=0)
        total = tl.dot(tl.trans(left), right, total)
    tl.store(part + value[:, None] * wide + output[None, :], total)


# -- dense layers: ``shape`` is a `fused.Shape`, ``tiles`` a `fused.Tiles` ---------------------------------------------


@triton.jit
def load_tile(source, row, column, rows: tl.constexpr, columns: tl.constexpr, fits: tl.constexpr):
    """Of a matrix [rows, columns]; zeros outside of it, unless all tiles fit."""
    place = source + row[:, None] * columns + column[None, :]
    return tl.load(place) if fits else tl.load(place, mask=(row < rows)[:, None] & (column < columns)[None, :], other=0)


@triton.jit
def active(x, relu: tl.constexpr):
    """The activation of the layer before, where it is part of this one."""
    if relu:
        x = tl.maximum(x, 0, propagate_nan=tl.PropagateNan.ALL).to(x.dtype)
    return x


@triton.jit
def add(one, other):
    """For sums."""
    return one + other


@triton.jit
def dense_forward(
    x,
    w,
    b,
    y,
    shape: tl.constexpr,
    tiles: tl.constexpr,
    relu: tl.constexpr,
    x_step: tl.constexpr,
    w_step: tl.constexpr,
    b_step: tl.constexpr,
):
    """A program makes ``tiles.columns`` outputs of the whole batch, so that the weights are read once."""
    batch: tl.constexpr = shape.batch
    inputs: tl.constexpr = shape.inputs
    outputs: tl.constexpr = shape.outputs
    rows: tl.constexpr = tiles.rows
    columns: tl.constexpr = tiles.columns
    in_fits: tl.constexpr = shape.inputs % tiles.rows == 0
    fits: tl.constexpr = shape.inputs % tiles.rows == 0 and shape.outputs % tiles.columns == 0
    across: tl.constexpr = (outputs + columns - 1) // columns
    column = tl.program_id(0) % across * columns + tl.arange(0, columns)
    member = (tl.program_id(0) // across).to(tl.int64)
    sample = tl.arange(0, batch)
    x += member * x_step
    w += member * w_step
    y += member * (batch * outputs)

    total = tl.full((batch, columns), 0, tl.float32)
    for start in range(0, inputs, rows):
        row = start + tl.arange(0, rows)
        left = active(load_tile(x, sample, row, batch, inputs, in_fits), relu)
        right = load_tile(w, row, column, inputs, outputs, fits)
        total = tl.dot(left, right.to(left.dtype), total)
    total += tl.load(b + member * b_step + column, mask=column < outputs, other=0)[None, :]
    place = y + sample[:, None] * outputs + column[None, :]
    tl.store(place, total.to(y.dtype.element_ty), mask=(column < outputs)[None, :])


@triton.jit
def update(w, m, slope, lr, momentum, weight_decay):
    """A step of SGD: the weights and their momentum after it."""
    m = momentum * m + (slope + weight_decay * w)
    return w - lr * m, m


@triton.jit
def dense_backward(
    lr,
    momentum,
    weight_decay,
    x,
    dy,
    w,
    m,
    b,
    m_b,
    new_w,
    new_m,
    new_b,
    new_m_b,
    dx,  # None where it is not wanted
    shape: tl.constexpr,
    tiles: tl.constexpr,
    relu: tl.constexpr,
    rate_steps: tl.constexpr,
    x_step: tl.constexpr,
    dy_step: tl.constexpr,
):
    """A program updates ``tiles.rows`` rows of the weights: it holds these columns of ``x`` and goes along the outputs.

    With the same tile of the weights it adds to the slope of ``x``, and then writes the new tile in its place.
    """
    batch: tl.constexpr = shape.batch
    inputs: tl.constexpr = shape.inputs
    outputs: tl.constexpr = shape.outputs
    rows: tl.constexpr = tiles.rows
    columns: tl.constexpr = tiles.columns
    in_fits: tl.constexpr = shape.inputs % tiles.rows == 0
    out_fits: tl.constexpr = shape.outputs % tiles.columns == 0
    fits: tl.constexpr = shape.inputs % tiles.rows == 0 and shape.outputs % tiles.columns == 0
    down: tl.constexpr = (inputs + rows - 1) // rows
    row = tl.program_id(0) % down * rows + tl.arange(0, rows)
    member = (tl.program_id(0) // down).to(tl.int64)
    sample = tl.arange(0, batch)
    lr = tl.load(lr + member * rate_steps[0])
    momentum = tl.load(momentum + member * rate_steps[1])
    weight_decay = tl.load(weight_decay + member * rate_steps[2])
    x += member * x_step
    dy += member * dy_step
    matrix = member * (inputs * outputs)
    vector = member * outputs

    left = active(load_tile(x, sample, row, batch, inputs, in_fits), relu)
    left = tl.trans(left)
    if dx is not None:
        total = tl.full((batch, rows), 0, tl.float32)
    for start in range(0, outputs, columns):
        column = start + tl.arange(0, columns)
        right = load_tile(dy, sample, column, batch, outputs, out_fits)
        old = load_tile(w + matrix, row, column, inputs, outputs, fits)
        old_m = load_tile(m + matrix, row, column, inputs, outputs, fits)
        if dx is not None:
            total = tl.dot(right, tl.trans(old.to(right.dtype)), total)
        after, after_m = update(old, old_m, tl.dot(left, right), lr, momentum, weight_decay)
        place = matrix + row[:, None] * outputs + column[None, :]
        inside = (row < inputs)[:, None] & (column < outputs)[None, :]
        tl.store(new_w + place, after, mask=inside)
        tl.store(new_m + place, after_m, mask=inside)
    if dx is not None:
        if relu:  # x is read again: it would take registers all the way
            again = load_tile(x, sample, row, batch, inputs, in_fits)
            total = tl.where(again > 0, total, 0)
        place = member * (batch * inputs) + sample[:, None] * inputs + row[None, :]
        tl.store(dx + place, total.to(dx.dtype.element_ty), mask=(row < inputs)[None, :])

    if tl.program_id(0) % down == 0:  # one program for the biases
        for start in range(0, outputs, columns):
            column = start + tl.arange(0, columns)
            inside = column < outputs
            slope = tl.reduce(load_tile(dy, sample, column, batch, outputs, out_fits).to(tl.float32), 0, add)
            old = tl.load(b + vector + column, mask=inside, other=0)
            old_m = tl.load(m_b + vector + column, mask=inside, other=0)
            after, after_m = update(old, old_m, slope, lr, momentum, weight_decay)
            tl.store(new_b + vector + column, after, mask=inside)
            tl.store(new_m_b + vector + column, after_m, mask=inside)
