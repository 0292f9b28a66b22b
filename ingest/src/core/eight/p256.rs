//! ECDSA on P-256 with SHA-256 (FIPS 186-5, 6.4.2): `u1 G + u2 Q` of eight signatures at once, each
//! with a key of its own, whose x is compared with r.
//!
//! Numbers modulo p are in Montgomery's form, points in Jacobian coordinates (x = X/Z², y = Y/Z³).
//! Their addition does not hold for two equal or opposite points: Z is zero then, and stays so, and the
//! signature is left to aws-lc.

mod field;

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_abs_epi64, _mm512_cmpeq_epi64_mask, _mm512_cmplt_epi64_mask,
    _mm512_set1_epi64, _mm512_setzero_si512,
};
use std::sync::LazyLock;

use fearless_simd::Avx512;
use num_bigint::BigUint;

use self::field::{Element, LIMBS, Number, Sum, below};
use super::der::{self, INTEGER, SEQUENCE};
use super::limbs::{
    LANES, LIMB_BITS, Lanes, by_eight, bytes_of, digits_of_4, digits_of_8, is_below, lane,
    lanes_set, limbs_of, limbs_of_be, load, load_all, mask, montgomery_product, negative_inverse,
    same, set_lane, store_all,
};

/// The multiples that a lookup may name: signed digits of 4 bits for a key, of 8 for G.
const KEY_MULTIPLES: usize = 8;
const BASE_MULTIPLES: usize = 128;
/// Digits of a number below 2^256; the highest takes the last carry.
const DIGITS: usize = 65;
const BASE_DIGITS: usize = DIGITS.div_ceil(2);

/// What is needed of the curve (SP 800-186, 3.2.1.3).
struct Curve {
    p: BigUint,
    b: BigUint,
    n: Number,
    /// n - 2 in bytes, the highest first.
    n_less_2: Vec<u8>,
    n_n0: u64,
    /// `R²` modulo n and modulo p, and R modulo p, which is one in Montgomery's form.
    n_r_squared: Number,
    r_squared: Number,
    one: Number,
    /// x and y of the multiples of G from 1 on, in Montgomery's form.
    base: Vec<[Number; 2]>,
}

static CURVE: LazyLock<Curve> = LazyLock::new(|| {
    let hex = |digits: &[u8]| BigUint::parse_bytes(digits, 16).unwrap_or_default();
    let p = hex(b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    let n = hex(b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let b = hex(b"5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
    let g_x = hex(b"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    let g_y = hex(b"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5");
    let r = BigUint::from(1u8) << (LIMBS * LIMB_BITS);
    let in_form = |number: &BigUint| limbs(&(number * &r % &p));
    let (mut x, mut y) = (g_x.clone(), g_y.clone());
    let mut base = vec![[in_form(&x), in_form(&y)]];
    for _ in 1..BASE_MULTIPLES {
        let (rise, run) = if x == g_x {
            (&x * &x % &p * 3u8 + &p - 3u8, &y * 2u8)
        } else {
            (&y + &p - &g_y, &x + &p - &g_x)
        };
        let slope = rise * run.modinv(&p).unwrap_or_default() % &p;
        let next = (&slope * &slope + &p + &p - &x - &g_x) % &p;
        y = (slope * (&x + &p - &next) + &p - &y) % &p;
        x = next;
        base.push([in_form(&x), in_form(&y)]);
    }
    Curve {
        n: limbs(&n),
        n_less_2: (&n - 2u8).to_bytes_be(),
        n_n0: negative_inverse(limbs(&n)[0]),
        n_r_squared: limbs(&(&r * &r % &n)),
        r_squared: limbs(&(&r * &r % &p)),
        one: limbs(&(&r % &p)),
        base,
        p,
        b,
    }
});

fn limbs(number: &BigUint) -> Number {
    limbs_of::<LIMB_BITS, LIMBS>(&number.to_bytes_le())
}

// ---- keys and signatures ------------------------------------------------------------------

/// A public key: the coordinates of a point of the curve.
pub struct Key {
    x: Number,
    y: Number,
}

impl Key {
    /// Of the SPKI of a point that is not compressed (RFC 5480, 2).
    pub(super) fn new(spki: &[u8]) -> Option<Key> {
        const BEFORE_POINT: &[u8] = &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ];
        let point: &[u8; 64] = spki.strip_prefix(BEFORE_POINT)?.try_into().ok()?;
        let [x, y] = [&point[..32], &point[32..]].map(BigUint::from_bytes_be);
        let Curve { p, b, .. } = &*CURVE;
        let right = (&x * &x % p * &x + b + (p - 3u8) * &x) % p;
        let is_point = x < *p && y < *p && &y * &y % p == right;
        is_point.then(|| Key { x: limbs(&x), y: limbs(&y) })
    }
}

/// A signature to be checked.
pub(super) struct Check<'a> {
    pub key: &'a Key,
    pub sha256: &'a [u8; 32],
    pub signature: &'a [u8],
}

/// r and s, each from 1 to n - 1, of a signature in the one form of DER that it has (RFC 3279, 2.2.3).
fn r_and_s(signature: &[u8]) -> Option<[Number; 2]> {
    let (body, behind) = der::element(signature, SEQUENCE)?;
    let (r, s) = der::element(body, INTEGER)?;
    let (s, rest) = der::element(s, INTEGER)?;
    (behind.is_empty() && rest.is_empty()).then_some(())?;
    let number = |integer| {
        let bytes = der::natural(integer).filter(|bytes| bytes.len() <= 32)?;
        Some(limbs_of_be::<LIMB_BITS, LIMBS>(bytes)).filter(|number| is_below(number, &CURVE.n))
    };
    Some([number(r)?, number(s)?])
}

/// What the computation takes of each lane.
struct Operands {
    x: Lanes<LIMBS>,
    y: Lanes<LIMBS>,
    r: Lanes<LIMBS>,
    s: Lanes<LIMBS>,
    digest: Lanes<LIMBS>,
}

/// Tells of those of the signatures that verify, by the number beside each.
pub(super) fn verify(here: Avx512, checks: &[(usize, Check<'_>)], found: &mut dyn FnMut(usize)) {
    by_eight(checks, found, |checks| {
        let zero = [[0; LANES]; LIMBS];
        let mut lanes = Operands { x: zero, y: zero, r: zero, s: zero, digest: zero };
        let is_set = lanes_set(checks, |i, check| set(&mut lanes, i, check));
        let verified = equation(here, &lanes, &digits(&scalars(here, &lanes)));
        std::array::from_fn(|i| is_set[i] && verified[i])
    });
}

/// Puts a signature into a lane; `None` if it is none.
fn set(lanes: &mut Operands, i: usize, check: &Check<'_>) -> Option<()> {
    let [r, s] = r_and_s(check.signature)?;
    set_lane(&mut lanes.x, i, &check.key.x);
    set_lane(&mut lanes.y, i, &check.key.y);
    set_lane(&mut lanes.r, i, &r);
    set_lane(&mut lanes.s, i, &s);
    set_lane(&mut lanes.digest, i, &limbs_of_be::<LIMB_BITS, LIMBS>(check.sha256));
    Some(())
}

// ---- u1 and u2 ----------------------------------------------------------------------------

fearless_simd::kernel!(
    /// `u1 = e/s` and `u2 = r/s` modulo n, either of which may have n added to it once.
    fn scalars(here: Avx512, lanes: &Operands) -> [Lanes<LIMBS>; 2] {
        let curve = &*CURVE;
        let n = same(&curve.n);
        let n0 = _mm512_set1_epi64(curve.n_n0.cast_signed());
        let product = |a: &[__m512i; LIMBS], b: &[__m512i; LIMBS]| montgomery_product(a, b, &n, n0);
        let [s, digest, r] = [&lanes.s, &lanes.digest, &lanes.r].map(|lanes| load_all(here, lanes));
        let r_squared = same(&curve.n_r_squared);
        // 1/s is s to the power of n - 2 (Fermat), four bits of it at a time.
        let mut powers = [product(&s, &r_squared); 16];
        for i in 2..powers.len() {
            powers[i] = product(&powers[i - 1], &powers[1]);
        }
        let mut windows = curve.n_less_2.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut inverse = powers[usize::from(windows.next().unwrap_or_default())];
        for window in windows {
            for _ in 0..4 {
                inverse = product(&inverse, &inverse);
            }
            if window > 0 {
                inverse = product(&inverse, &powers[usize::from(window)]);
            }
        }
        // It is in Montgomery's form, the other factor is not, nor is the product.
        [product(&digest, &inverse), product(&r, &inverse)].map(|product| store_all(here, product))
    }
);

/// Digits of u1 and u2, the highest first.
struct Digits {
    of_key: [[i64; LANES]; DIGITS],
    of_base: [[i16; LANES]; BASE_DIGITS],
}

fn digits([u1, u2]: &[Lanes<LIMBS>; 2]) -> Digits {
    let n = &CURVE.n;
    let mut digits = Digits { of_key: [[0; LANES]; DIGITS], of_base: [[0; LANES]; BASE_DIGITS] };
    for i in 0..LANES {
        let [u1, u2] = [u1, u2].map(|of| bytes_of::<LIMB_BITS, LIMBS>(&below(lane(of, i), n)));
        set_lane(&mut digits.of_key, i, &digits_of_4(&u2));
        set_lane(&mut digits.of_base, i, &digits_of_8(&u1));
    }
    digits
}

// ---- points -------------------------------------------------------------------------------

#[derive(Clone, Copy)]
struct Point {
    x: Element,
    y: Element,
    z: Element,
}

/// A point as it is added: with Z² and Z³.
#[derive(Clone, Copy)]
struct Addend {
    point: Point,
    zz: Element,
    zzz: Element,
}

impl Point {
    /// Bernstein, Lange: Explicit-Formulas Database, dbl-2001-b.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn doubled(&self) -> Point {
        let delta = self.z.squared();
        let gamma = self.y.squared();
        let beta = self.x.times(gamma);
        let third = self.x.minus(delta).times(self.x.plus(delta));
        let alpha = Sum(third.0).and(third).and(third).settled();
        let twice = beta.plus(beta);
        let four = twice.plus(twice);
        let x = Sum(alpha.squared().0).less(four, 1).settled();
        let z = Sum(self.y.plus(self.z).squared().0).less(gamma, 0).less(delta, 0).settled();
        let y = Sum(alpha.times(four.minus(x)).0).less(gamma.squared(), 3).settled();
        Point { x, y, z }
    }

    /// The same, add-1998-cmo-2. Of two equal or opposite points, or where Z of one is zero, Z is zero.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn plus(&self, addend: &Addend) -> Point {
        let other = &addend.point;
        let u1 = self.x.times(addend.zz);
        let s1 = self.y.times(addend.zzz);
        self.sum(other, u1, s1, self.z.times(other.z))
    }

    /// The same for a point whose Z is one.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn plus_affine(&self, other: &Point) -> Point {
        self.sum(other, self.x, self.y, self.z)
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn sum(&self, other: &Point, u1: Element, s1: Element, zz: Element) -> Point {
        let z1z1 = self.z.squared();
        let u2 = other.x.times(z1z1);
        let s2 = other.y.times(self.z).times(z1z1);
        let (h, r) = (u2.minus(u1), s2.minus(s1));
        let hh = h.squared();
        let hhh = h.times(hh);
        let v = u1.times(hh);
        let x = Sum(r.squared().0).less(hhh, 0).less(v, 1).settled();
        let y = Sum(r.times(v.minus(x)).0).less(s1.times(hhh), 0).settled();
        Point { x, y, z: zz.times(h) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn or(&self, mask: __mmask8, other: &Point) -> Point {
        Point {
            x: self.x.or(mask, other.x),
            y: self.y.or(mask, other.y),
            z: self.z.or(mask, other.z),
        }
    }

    /// The negative point where the mask has its bit.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn negated(&self, mask: __mmask8) -> Point {
        let zero = Element::same(&[0; LIMBS]);
        Point { y: self.y.or(mask, zero.minus(self.y)), ..*self }
    }
}

impl Addend {
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn of(point: Point) -> Addend {
        let zz = point.z.squared();
        Addend { point, zz, zzz: zz.times(point.z) }
    }
}

/// A running sum, and the lanes in which it is still the infinite point.
struct Running {
    point: Point,
    infinite: __mmask8,
}

impl Running {
    /// Takes the sum with an addend, except where the digit is zero.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn take(&mut self, sum: &Point, addend: &Point, is_zero: __mmask8) {
        let sum = sum.or(self.infinite, addend);
        self.point = sum.or(is_zero, &self.point);
        self.infinite &= is_zero;
    }
}

fearless_simd::kernel!(
    /// True in a lane where x of `u1 G + u2 Q` is r. That it may be r + n is left to aws-lc: so small
    /// an r is never met.
    fn equation(here: Avx512, lanes: &Operands, digits: &Digits) -> [bool; LANES] {
        let curve = &*CURVE;
        let one = Element::same(&curve.one);
        let r_squared = Element::same(&curve.r_squared);
        let [x, y, r] = [&lanes.x, &lanes.y, &lanes.r]
            .map(|lanes| Element(load_all(here, lanes)).times(r_squared));
        let key = Point { x, y, z: one };
        let first = Addend::of(key);
        let mut multiples = [first; KEY_MULTIPLES];
        multiples[1] = Addend::of(key.doubled());
        for i in 2..KEY_MULTIPLES {
            multiples[i] = Addend::of(multiples[i - 1].point.plus(&first));
        }
        let mut sum = Running { point: key, infinite: __mmask8::MAX };
        for (place, of_key) in digits.of_key.iter().enumerate() {
            for _ in 0..4 {
                sum.point = sum.point.doubled();
            }
            let of_key = load(here, &of_key.map(i64::cast_unsigned));
            let addend = chosen(&multiples, of_key);
            let is_zero = _mm512_cmpeq_epi64_mask(of_key, _mm512_setzero_si512());
            sum.take(&sum.point.plus(&addend), &addend.point, is_zero);
            if place % 2 == 0 {
                let of_base = &digits.of_base[place / 2];
                let addend = chosen_of_base(here, curve, of_base, one);
                let is_zero = mask(|i| of_base[i] == 0);
                sum.take(&sum.point.plus_affine(&addend), &addend, is_zero);
            }
        }
        let Point { x, z, .. } = sum.point;
        let is_r = x.minus(r.times(z.squared())).is_zero(here);
        // Z is zero of the infinite point, and ever after two equal or opposite points met.
        let is_none = z.is_zero(here);
        std::array::from_fn(|i| is_r[i] && !is_none[i] && sum.infinite >> i & 1 == 0)
    }
);

/// The multiple that each lane's digit names; of zero, any.
#[target_feature(enable = "avx512f")]
#[inline]
fn chosen(multiples: &[Addend; KEY_MULTIPLES], digits: __m512i) -> Addend {
    let sizes = _mm512_abs_epi64(digits);
    let [mut chosen, ref multiples @ ..] = *multiples;
    for (multiple, size) in multiples.iter().zip(2..) {
        let here = _mm512_cmpeq_epi64_mask(sizes, _mm512_set1_epi64(size));
        chosen = Addend {
            point: chosen.point.or(here, &multiple.point),
            zz: chosen.zz.or(here, multiple.zz),
            zzz: chosen.zzz.or(here, multiple.zzz),
        };
    }
    let negative = _mm512_cmplt_epi64_mask(digits, _mm512_setzero_si512());
    Addend { point: chosen.point.negated(negative), ..chosen }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn chosen_of_base(here: Avx512, curve: &Curve, digits: &[i16; LANES], one: Element) -> Point {
    let entries =
        digits.map(|digit| &curve.base[usize::from(digit.unsigned_abs()).saturating_sub(1)]);
    let coordinate = |which: usize| -> Element {
        let mut lanes = [[0; LANES]; LIMBS];
        for (lane, entry) in entries.iter().enumerate() {
            set_lane(&mut lanes, lane, &entry[which]);
        }
        Element(load_all(here, &lanes))
    };
    let point = Point { x: coordinate(0), y: coordinate(1), z: one };
    point.negated(mask(|i| digits[i] < 0))
}

#[cfg(test)]
mod tests;
