//! Ed25519 (RFC 8032, 5.1.7): `[S]B - [k]A` of eight signatures at once, each with a key of its own,
//! encoded and compared with R as aws-lc does it: without cofactor, R byte for byte.
//!
//! Points are in extended coordinates (Hisil, Wong, Carter, Dawson: Twisted Edwards Curves Revisited, 3.1
//! and 3.3), whose addition holds for any two points here.

mod field;

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_abs_epi64, _mm512_cmpeq_epi64_mask, _mm512_cmplt_epi64_mask,
    _mm512_set1_epi64, _mm512_setzero_si512,
};
use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA512};
use fearless_simd::Avx512;
use num_bigint::BigUint;

use self::field::{Element, LIMB_BITS, LIMBS, canonical, limbs_of};
use super::limbs::{
    LANES, Lanes, by_eight, bytes_of, digits_of_4, digits_of_8, lanes_set, load, load_all, mask,
    set_lane,
};

/// The encoding of a point: y, and the lowest bit of x on top.
fn encoded(y: &[u64; LIMBS], x_is_odd: bool) -> [u8; 32] {
    let mut bytes = bytes_of::<LIMB_BITS, LIMBS>(y);
    bytes[31] |= u8::from(x_is_odd) << 7;
    bytes
}

// ---- points -------------------------------------------------------------------------------

/// x = X/Z, y = Y/Z, and T = XY/Z.
#[derive(Clone, Copy)]
struct Point {
    x: Element,
    y: Element,
    z: Element,
    t: Element,
}

/// A point as it is added: Y + X, Y - X, 2Z and 2dT.
#[derive(Clone, Copy)]
struct Addend {
    sum: Element,
    difference: Element,
    z2: Element,
    t2d: Element,
}

impl Addend {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn of(point: &Point, d2: Element) -> Addend {
        Addend {
            sum: point.y.plus(point.x),
            difference: point.y.minus(point.x),
            z2: point.z.plus(point.z),
            t2d: point.t.times(d2),
        }
    }

    /// The negative point where the mask has its bit.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn negated(self, mask: __mmask8) -> Addend {
        let zero = Element::same([0; LIMBS]);
        Addend {
            sum: self.sum.or(mask, self.difference),
            difference: self.difference.or(mask, self.sum),
            z2: self.z2,
            t2d: self.t2d.or(mask, zero.minus(self.t2d)),
        }
    }
}

impl Point {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn doubled(&self, with_t: bool) -> Point {
        let (a, b) = (self.x.squared(), self.y.squared());
        let zz = self.z.squared();
        let h = a.plus(b);
        let e = h.minus(self.x.plus(self.y).squared());
        let g = a.minus(b);
        let f = g.plus(zz).plus(zz);
        let t = if with_t { e.times(h) } else { self.t };
        Point { x: e.times(f), y: g.times(h), z: f.times(g), t }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn plus(&self, addend: &Addend, with_t: bool) -> Point {
        let a = self.y.minus(self.x).times(addend.difference);
        let b = self.y.plus(self.x).times(addend.sum);
        let c = self.t.times(addend.t2d);
        let d = self.z.times(addend.z2);
        let (e, f, g, h) = (b.minus(a), d.minus(c), d.plus(c), b.plus(a));
        let t = if with_t { e.times(h) } else { self.t };
        Point { x: e.times(f), y: g.times(h), z: f.times(g), t }
    }
}

/// A key's digits are signed ones of 4 bits, the base point's of 8: multiples up to these.
const KEY_MULTIPLES: usize = 8;
const BASE_MULTIPLES: usize = 128;
const DIGITS: usize = 64;

struct Constants {
    d: [u64; LIMBS],
    d2: [u64; LIMBS],
    root_of_minus_one: [u64; LIMBS],
    /// y + x, y - x and 2dxy of the multiples of the base point from 0 on.
    base: Vec<[[u64; LIMBS]; 3]>,
    /// The order of the base point.
    order: BigUint,
}

static CONSTANTS: LazyLock<Constants> = LazyLock::new(|| {
    let one = BigUint::from(1u8);
    let p = (&one << 255) - 19u8;
    let inverse = |number: &BigUint| number.modinv(&p).unwrap_or_default();
    let d = &p - BigUint::from(121_665u32) * inverse(&BigUint::from(121_666u32)) % &p;
    // RFC 8032, 5.1; the order is 2^252 and this.
    let order = (&one << 252) + 27_742_317_777_372_353_535_851_937_790_883_648_493u128;
    let y = BigUint::from(4u8) * inverse(&BigUint::from(5u8)) % &p;
    let root_of_minus_one = BigUint::from(2u8).modpow(&((&p - 1u8) >> 2), &p);
    let x_squared = (&y * &y - 1u8) * inverse(&(&d * &y % &p * &y + 1u8)) % &p;
    let root = x_squared.modpow(&((&p + 3u8) >> 3), &p);
    let root = if &root * &root % &p == x_squared { root } else { root * &root_of_minus_one % &p };
    // The base point's x is even.
    let x = if root.bit(0) { &p - root } else { root };
    // (x, y) + (u, v), as x and y over a denominator (RFC 8032, 5.1.4).
    let mut multiples = vec![(BigUint::ZERO, one.clone(), one.clone())];
    for i in 0..BASE_MULTIPLES {
        let (u, v, w) = &multiples[i];
        let (xy, uv) = (&x * &y % &p, u * v % &p);
        let both = &d * xy % &p * uv % &p;
        let ww = w * w % &p;
        let (plus, minus) = ((&ww + &both) % &p, (&ww + &p - &both) % &p);
        let across = (&x * v + &y * u) % &p * w % &p;
        let along = (&y * v + &x * u) % &p * w % &p;
        multiples.push((across * &minus % &p, along * &plus % &p, plus * minus % &p));
    }
    let limbs = |number: BigUint| limbs_of(&(number % &p).to_bytes_le());
    let base = multiples
        .into_iter()
        .map(|(u, v, w)| {
            let w = inverse(&w);
            let (u, v) = (u * &w % &p, v * &w % &p);
            let product = &d * &u % &p * &v * 2u8;
            [limbs(&v + &u), limbs(&v + &p - &u), limbs(product)]
        })
        .collect();
    Constants {
        d2: limbs(&d * 2u8),
        d: limbs(d),
        root_of_minus_one: limbs(root_of_minus_one),
        base,
        order,
    }
});

// ---- signatures ---------------------------------------------------------------------------

/// A signature to be checked.
pub(super) struct Check<'a> {
    pub key: &'a [u8; 32],
    pub message: &'a [u8],
    pub signature: &'a [u8],
}

/// What the computation takes of each lane.
struct Operands {
    /// y of the key.
    y: Lanes<LIMBS>,
    /// The lanes in which the key's x is odd.
    x_is_odd: u8,
    /// Digits of k, from the highest on, and of S.
    of_key: [[i64; LANES]; DIGITS],
    of_base: [[i16; LANES]; DIGITS / 2],
}

/// The key in its SPKI (RFC 8410, 4).
pub(super) fn key_of(spki: &[u8]) -> Option<&[u8; 32]> {
    const BEFORE_KEY: &[u8] =
        &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    spki.strip_prefix(BEFORE_KEY)?.try_into().ok()
}

/// Tells of those of the signatures that verify, by the number beside each.
pub(super) fn verify(here: Avx512, checks: &[(usize, Check<'_>)], found: &mut dyn FnMut(usize)) {
    by_eight(checks, found, |checks| {
        let mut lanes = Operands {
            y: [[0; LANES]; LIMBS],
            x_is_odd: 0,
            of_key: [[0; LANES]; DIGITS],
            of_base: [[0; LANES]; DIGITS / 2],
        };
        let is_set = lanes_set(checks, |i, check| set(&mut lanes, i, check));
        let points = equation(here, &lanes);
        std::array::from_fn(|i| {
            is_set[i] && points[i].is_some_and(|r| checks[i].signature.starts_with(&r))
        })
    });
}

/// Puts a signature into a lane; `None` if it cannot be checked here, or is none.
fn set(lanes: &mut Operands, i: usize, check: &Check<'_>) -> Option<()> {
    let (r, s) = check.signature.split_at_checked(32)?;
    let s: &[u8; 32] = s.try_into().ok()?;
    let order = &CONSTANTS.order;
    (BigUint::from_bytes_le(s) < *order).then_some(())?;
    let mut key = *check.key;
    let x_is_odd = key[31] >> 7;
    key[31] &= 0x7f;
    let y = limbs_of(&key);
    // Another form of a number below 19 is left to aws-lc.
    (canonical(y) == y).then_some(())?;
    let mut digest = Context::new(&SHA512);
    [r, check.key, check.message].iter().for_each(|part| digest.update(part));
    let k = (BigUint::from_bytes_le(digest.finish().as_ref()) % order).to_bytes_le();
    lanes.x_is_odd |= x_is_odd << i;
    set_lane(&mut lanes.y, i, &y);
    // Both numbers are below 2^253, so that no carry is left.
    set_lane(&mut lanes.of_key, i, &digits_of_4(&k));
    set_lane(&mut lanes.of_base, i, &digits_of_8(s));
    Some(())
}

fearless_simd::kernel!(
    /// `[S]B - [k]A`, encoded; `None` in a lane whose A is no point, or has x = 0.
    fn equation(here: Avx512, lanes: &Operands) -> [Option<[u8; 32]>; LANES] {
        let constants = &*CONSTANTS;
        let one = Element::same([1, 0, 0, 0, 0]);
        let zero = Element::same([0; LIMBS]);
        let d2 = Element::same(constants.d2);

        // A, of which only y is known: x² = u/v (RFC 8032, 5.1.3).
        let y = Element(load_all(here, &lanes.y));
        let yy = y.squared();
        let u = yy.minus(one);
        let v = yy.times(Element::same(constants.d)).plus(one);
        let vv = v.squared();
        let uv3 = u.times(vv).times(v);
        let root = uv3.times(uv3.times(vv.squared()).power_of_root());
        let vxx = v.times(root.squared());
        let (vxx, u, minus_u) = (vxx.numbers(here), u.numbers(here), zero.minus(u).numbers(here));
        let turned = mask(|i| vxx[i] == minus_u[i]);
        let x = root.or(turned, root.times(Element::same(constants.root_of_minus_one)));
        let numbers = x.numbers(here);
        let is_point: [bool; LANES] = std::array::from_fn(|i| {
            (vxx[i] == u[i] || vxx[i] == minus_u[i]) && numbers[i] != [0; LIMBS]
        });
        // Minus A: the other of the two roots.
        let wrong = mask(|i| (numbers[i][0] & 1 == 1) == (lanes.x_is_odd >> i & 1 == 1));
        let x = x.or(wrong, zero.minus(x));

        let a = Point { x, y, z: one, t: x.times(y) };
        let first = Addend::of(&a, d2);
        let identity = Addend { sum: one, difference: one, z2: one.plus(one), t2d: zero };
        let mut multiples = [identity; KEY_MULTIPLES + 1];
        multiples[1] = first;
        let mut multiple = a;
        for held in &mut multiples[2..] {
            multiple = multiple.plus(&first, true);
            *held = Addend::of(&multiple, d2);
        }

        let mut sum = Point { x: zero, y: one, z: one, t: zero };
        for (place, digits) in lanes.of_key.iter().enumerate() {
            if place > 0 {
                for _ in 0..3 {
                    sum = sum.doubled(false);
                }
                sum = sum.doubled(true);
            }
            let of_base = place % 2 == 1;
            let digits = load(here, &digits.map(i64::cast_unsigned));
            sum = sum.plus(&chosen(&multiples, digits), of_base);
            if of_base {
                let digits = &lanes.of_base[place / 2];
                sum = sum.plus(&chosen_of_base(here, &constants.base, digits), false);
            }
        }
        let inverse = sum.z.inverse();
        let x = sum.x.times(inverse).numbers(here);
        let y = sum.y.times(inverse).numbers(here);
        std::array::from_fn(|i| is_point[i].then(|| encoded(&y[i], x[i][0] & 1 == 1)))
    }
);

/// The multiple that each lane's digit names.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn chosen(multiples: &[Addend; KEY_MULTIPLES + 1], digits: __m512i) -> Addend {
    let sizes = _mm512_abs_epi64(digits);
    let [mut addend, ref multiples @ ..] = *multiples;
    for (multiple, size) in multiples.iter().zip(1..) {
        let here = _mm512_cmpeq_epi64_mask(sizes, _mm512_set1_epi64(size));
        addend = Addend {
            sum: addend.sum.or(here, multiple.sum),
            difference: addend.difference.or(here, multiple.difference),
            z2: addend.z2.or(here, multiple.z2),
            t2d: addend.t2d.or(here, multiple.t2d),
        };
    }
    addend.negated(_mm512_cmplt_epi64_mask(digits, _mm512_setzero_si512()))
}

#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn chosen_of_base(here: Avx512, base: &[[[u64; LIMBS]; 3]], digits: &[i16; LANES]) -> Addend {
    let entries = digits.map(|digit| &base[usize::from(digit.unsigned_abs())]);
    let coordinate = |which: usize| -> [__m512i; LIMBS] {
        let mut lanes = [[0; LANES]; LIMBS];
        for (lane, entry) in entries.iter().enumerate() {
            set_lane(&mut lanes, lane, &entry[which]);
        }
        load_all(here, &lanes)
    };
    let addend = Addend {
        sum: Element(coordinate(0)),
        difference: Element(coordinate(1)),
        z2: Element::same([2, 0, 0, 0, 0]),
        t2d: Element(coordinate(2)),
    };
    addend.negated(mask(|i| digits[i] < 0))
}

#[cfg(test)]
mod tests;
