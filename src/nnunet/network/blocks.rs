//! The parts networks are made of, as `dynamic_network_architectures` 0.4 wires them.

use super::arguments::{Architecture, Class};
use super::graph::{Builder, Flow};
use crate::Mismatch;

/// The whole network, from `input` to `output`.
pub(super) fn network(b: &mut Builder<'_>) -> Result<(), Mismatch> {
    let Architecture { class, features, strides, kernels, .. } = b.architecture;
    let stages = features.len();
    let skips = if class.is_plain() { plain_encoder(b)? } else { residual_encoder(b)? };
    let mut flow = skips[stages - 1].clone();
    for s in 0..stages - 1 {
        // Stages of the decoder go up from the bottleneck.
        let level = stages - 2 - s;
        // The kernels of nnU-Net v1's decoder are those of the stage that it comes from.
        let kernel = &kernels[level + usize::from(*class == Class::Generic)];
        let channels = features[level];
        let up = format!("decoder.transpconvs.{s}");
        let below = b.upsample(&up, &flow, channels, &strides[level + 1])?;
        let joined = b.concat(&format!("decoder.concat.{s}"), &below, &skips[level]);
        let key = format!("decoder.stages.{s}");
        let blocks = b.architecture.decoder[s];
        flow = if *class == Class::Residual {
            let stride = vec![1; b.architecture.rank];
            residual_stage(b, &key, joined, (channels, None), (kernel, &stride), blocks)?
        } else {
            let key = format!("{key}.convs");
            conv_stage(b, &key, joined, channels, (kernel, None), blocks)?
        };
        let head = format!("decoder.seg_layers.{s}");
        if s == stages - 2 {
            b.head(&head, &flow)?;
        } else {
            b.unused_head(&head, channels)?;
        }
    }
    Ok(())
}

fn plain_encoder(b: &mut Builder<'_>) -> Result<Vec<Flow>, Mismatch> {
    let Architecture { features, kernels, strides, encoder, .. } = b.architecture;
    let (mut flow, mut skips) = (b.input(), Vec::new());
    for s in 0..features.len() {
        let key = format!("encoder.stages.{s}.0.convs");
        let shape = (&kernels[s][..], Some(&strides[s][..]));
        flow = conv_stage(b, &key, flow, features[s], shape, encoder[s])?;
        skips.push(flow.clone());
    }
    Ok(skips)
}

fn residual_encoder(b: &mut Builder<'_>) -> Result<Vec<Flow>, Mismatch> {
    let Architecture { features, kernels, strides, encoder, bottleneck, stem, .. } = b.architecture;
    let image = b.input();
    let mut flow = conv_stage(b, "encoder.stem.convs", image, *stem, (&kernels[0], None), 1)?;
    let mut skips = Vec::new();
    for s in 0..features.len() {
        let key = format!("encoder.stages.{s}");
        let channels = (features[s], bottleneck.as_ref().map(|inner| inner[s]));
        flow = residual_stage(b, &key, flow, channels, (&kernels[s], &strides[s]), encoder[s])?;
        skips.push(flow.clone());
    }
    Ok(skips)
}

/// Convolutions with normalization and activation, the first one with the stride.
fn conv_stage(
    b: &mut Builder<'_>,
    key: &str,
    mut flow: Flow,
    channels: usize,
    (kernel, stride): (&[usize], Option<&[usize]>),
    count: usize,
) -> Result<Flow, Mismatch> {
    let ones = vec![1; kernel.len()];
    for i in 0..count {
        let stride = stride.filter(|_| i == 0).unwrap_or(&ones);
        flow = conv_block(b, &format!("{key}.{i}"), &flow, channels, (kernel, stride), true)?;
    }
    Ok(flow)
}

/// Convolution, normalization and, unless the block adds something first, activation.
fn conv_block(
    b: &mut Builder<'_>,
    key: &str,
    from: &Flow,
    channels: usize,
    shape: (&[usize], &[usize]),
    active: bool,
) -> Result<Flow, Mismatch> {
    let (norm, nonlin) = (format!("{key}.norm"), format!("{key}.nonlin"));
    let flow = b.conv(&format!("{key}.conv"), from, channels, shape, b.architecture.bias)?;
    if !active {
        return b.norm(&norm, flow);
    }
    if b.architecture.nonlin_first {
        let flow = b.activation(&nonlin, flow);
        return b.norm(&norm, flow);
    }
    let flow = b.norm(&norm, flow)?;
    Ok(b.activation(&nonlin, flow))
}

/// Residual blocks, the first one with the stride: `BasicBlockD`, or `BottleneckD` where there
/// is a number of inner channels.
fn residual_stage(
    b: &mut Builder<'_>,
    key: &str,
    mut flow: Flow,
    (channels, inner): (usize, Option<usize>),
    (kernel, stride): (&[usize], &[usize]),
    count: usize,
) -> Result<Flow, Mismatch> {
    let ones = vec![1; kernel.len()];
    for i in 0..count {
        let key = format!("{key}.blocks.{i}");
        let stride = if i == 0 { stride } else { &ones };
        let conv = |n: usize| format!("{key}.conv{n}");
        let last = if let Some(inner) = inner {
            let first = conv_block(b, &conv(1), &flow, inner, (&ones, &ones), true)?;
            let middle = conv_block(b, &conv(2), &first, inner, (kernel, stride), true)?;
            conv_block(b, &conv(3), &middle, channels, (&ones, &ones), false)?
        } else {
            let first = conv_block(b, &conv(1), &flow, channels, (kernel, stride), true)?;
            conv_block(b, &conv(2), &first, channels, (kernel, &ones), false)?
        };
        let skip = skip(b, &key, &flow, channels, stride)?;
        let sum = b.add(&format!("{key}.add"), &last, &skip);
        flow = b.activation(&format!("{key}.nonlin"), sum);
    }
    Ok(flow)
}

/// What a block adds: its input, averaged where the block has a stride, projected where the
/// number of channels changes.
fn skip(
    b: &mut Builder<'_>,
    key: &str,
    from: &Flow,
    channels: usize,
    stride: &[usize],
) -> Result<Flow, Mismatch> {
    let strided = stride.iter().any(|&s| s != 1);
    let flow =
        if strided { b.average(&format!("{key}.skip.0"), from, stride) } else { from.clone() };
    if from.channels == channels {
        return Ok(flow);
    }
    let key = format!("{key}.skip.{}", usize::from(strided));
    let ones = vec![1; stride.len()];
    // The projection never has a bias.
    let flow = b.conv(&format!("{key}.conv"), &flow, channels, (&ones, &ones), false)?;
    b.norm(&format!("{key}.norm"), flow)
}
