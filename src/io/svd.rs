//! LINPACK's singular value decomposition of a 3 x 3 matrix, as ITK applies it.
//!
//! Signs of singular vectors, and the vectors themselves where singular values coincide, are
//! up to the algorithm, and ITK decides by them. So this follows LINPACK's `ssvdc` (Dongarra
//! et al. 1979) step by step and in `f32`: it is not meant for anything else.

/// Columns of a matrix.
type Columns = [[f32; 3]; 3];

/// Steps after which a singular value counts as not found, as in VNL's LINPACK.
const MOST_STEPS: usize = 1000;

/// Left singular vectors, and singular values from the largest.
pub(super) struct Svd {
    pub(super) vectors: Columns,
    pub(super) values: [f32; 3],
}

/// Decomposes a matrix given by its columns.
pub(super) fn decompose(columns: Columns) -> Svd {
    let (mut u, mut s, mut e) = bidiagonal(columns);
    // Of the leading block of `m` values the last one is separated next.
    let (mut m, mut steps) = (3, 0);
    while m > 0 && steps < MOST_STEPS {
        let negligible = |value: f32, beside: f32| beside + value.abs() == beside;
        let split = (0..m - 1).rev().find(|&k| negligible(e[k], s[k].abs() + s[k + 1].abs()));
        if let Some(k) = split {
            e[k] = 0.0;
        }
        let first = split.map_or(0, |k| k + 1);
        if first == m - 1 {
            let mut k = first;
            s[k] = s[k].abs();
            while k < 2 && s[k] < s[k + 1] {
                s.swap(k, k + 1);
                u.swap(k, k + 1);
                k += 1;
            }
            (m, steps) = (m - 1, 0);
            continue;
        }
        let zero = (first..m).rev().find(|&k| {
            let after = if k + 1 < m { e[k].abs() } else { 0.0 };
            let before = if k > first { e[k - 1].abs() } else { 0.0 };
            negligible(s[k], after + before)
        });
        match zero {
            Some(k) if k + 1 == m => {
                s[k] = 0.0;
                let mut f = std::mem::take(&mut e[m - 2]);
                for k in (first..m - 1).rev() {
                    let (cosine, sine, r) = rotation(s[k], f);
                    s[k] = r;
                    if k > first {
                        f = -sine * e[k - 1];
                        e[k - 1] *= cosine;
                    }
                }
            }
            Some(zero) => {
                s[zero] = 0.0;
                let mut f = std::mem::take(&mut e[zero]);
                for k in zero + 1..m {
                    let (cosine, sine, r) = rotation(s[k], f);
                    s[k] = r;
                    f = -sine * e[k];
                    e[k] *= cosine;
                    rotate(&mut u, k, zero, cosine, sine);
                }
            }
            None => {
                chase(&mut u, &mut s, &mut e, first, m);
                steps += 1;
            }
        }
    }
    Svd { vectors: u, values: s }
}

/// Householder reflections to an upper bidiagonal matrix: the product of those from the left,
/// the diagonal, and what stands above it.
fn bidiagonal(mut x: Columns) -> (Columns, [f32; 3], [f32; 3]) {
    let (mut s, mut e) = ([0.0_f32; 3], [0.0_f32; 3]);
    let mut u = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]];
    for l in 0..2 {
        let mut reflector = x[l];
        s[l] = reflect(&mut reflector[l..]);
        for j in l + 1..3 {
            if s[l] != 0.0 {
                apply(&reflector, &mut x[j], l);
            }
            e[j] = x[j][l];
        }
        u[l][l..].copy_from_slice(&reflector[l..]);
        if l == 0 {
            e[0] = reflect(&mut e[1..]);
            if e[0] != 0.0 {
                let mut work = [0.0; 3];
                for j in 1..3 {
                    add(&mut work[1..], e[j], &x[j][1..]);
                }
                for j in 1..3 {
                    add(&mut x[j][1..], -e[j] / e[1], &work[1..]);
                }
            }
        }
    }
    s[2] = x[2][2];
    (e[1], e[2]) = (x[2][1], 0.0);

    for l in [1, 0] {
        let reflector = u[l];
        u[l] = [0.0; 3];
        if s[l] != 0.0 {
            for later in &mut u[l + 1..] {
                apply(&reflector, later, l);
            }
            for i in l..3 {
                u[l][i] = -reflector[i];
            }
        }
        u[l][l] += 1.0;
    }
    (u, s, e)
}

/// Turns a vector into the reflector that leaves its first entry only, and returns that entry.
fn reflect(v: &mut [f32]) -> f32 {
    let length = norm(v);
    if length == 0.0 {
        return -0.0;
    }
    let signed = if v[0] == 0.0 { length } else { length.copysign(v[0]) };
    let inverse = 1.0 / signed;
    for v in v.iter_mut() {
        *v *= inverse;
    }
    v[0] += 1.0;
    -signed
}

/// Applies a reflector that begins at entry `l`.
fn apply(reflector: &[f32; 3], v: &mut [f32; 3], l: usize) {
    let product = (l..3).fold(0.0, |sum, i| sum + reflector[i] * v[i]);
    let factor = -product / reflector[l];
    add(&mut v[l..], factor, &reflector[l..]);
}

fn add(to: &mut [f32], factor: f32, v: &[f32]) {
    for (to, v) in to.iter_mut().zip(v) {
        *to += factor * v;
    }
}

/// The Euclidean norm, scaled as in BLAS's `snrm2`.
fn norm(v: &[f32]) -> f32 {
    let (mut scale, mut sum) = (0.0_f32, 1.0_f32);
    for size in v.iter().map(|v| v.abs()).filter(|&size| size != 0.0) {
        if scale < size {
            let ratio = scale / size;
            sum = sum * (ratio * ratio) + 1.0;
            scale = size;
        } else {
            let ratio = size / scale;
            sum += ratio * ratio;
        }
    }
    (f64::from(scale) * f64::from(sum).sqrt()) as f32
}

/// Cosine and sine of the rotation that takes `(a, b)` to `(r, 0)`, and `r`: BLAS's `srotg`.
fn rotation(a: f32, b: f32) -> (f32, f32, f32) {
    let scale = a.abs() + b.abs();
    if scale == 0.0 {
        return (1.0, 0.0, 0.0);
    }
    let (x, y) = (a / scale, b / scale);
    let length = (f64::from(scale) * f64::from(x * x + y * y).sqrt()) as f32;
    let r = length.copysign(if a.abs() > b.abs() { a } else { b });
    (a / r, b / r, r)
}

fn rotate(u: &mut Columns, i: usize, j: usize, cosine: f32, sine: f32) {
    let (first, second) = (u[i], u[j]);
    u[i] = std::array::from_fn(|k| cosine * first[k] + sine * second[k]);
    u[j] = std::array::from_fn(|k| cosine * second[k] - sine * first[k]);
}

/// One implicitly shifted QR step on the block `first..m`.
fn chase(u: &mut Columns, s: &mut [f32; 3], e: &mut [f32; 3], first: usize, m: usize) {
    let sizes = [s[m - 1], s[m - 2], e[m - 2], s[first], e[first]];
    let scale = sizes.into_iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let [sm, smm1, emm1, sl, el] = sizes.map(|v| v / scale);
    let b = 0.5 * ((smm1 + sm) * (smm1 - sm) + emm1 * emm1);
    let c = (sm * emm1) * (sm * emm1);
    let shift = if b == 0.0 && c == 0.0 { 0.0 } else { c / (b + (b * b + c).sqrt().copysign(b)) };
    let (mut f, mut g) = ((sl + sm) * (sl - sm) + shift, sl * el);
    for k in first..m - 1 {
        let (cosine, sine, r) = rotation(f, g);
        if k > first {
            e[k - 1] = r;
        }
        f = cosine * s[k] + sine * e[k];
        e[k] = cosine * e[k] - sine * s[k];
        g = sine * s[k + 1];
        s[k + 1] *= cosine;

        let (cosine, sine, r) = rotation(f, g);
        s[k] = r;
        f = cosine * e[k] + sine * s[k + 1];
        s[k + 1] = -sine * e[k] + cosine * s[k + 1];
        g = sine * e[k + 1];
        e[k + 1] *= cosine;
        rotate(u, k, k + 1, cosine, sine);
    }
    e[m - 2] = f;
}
