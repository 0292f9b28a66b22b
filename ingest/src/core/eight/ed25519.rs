//! Ed25519 (RFC 8032, 5.1.7): `[S]B - [k]A` of eight signatures at once, each with a key of its own,
//! encoded and compared with R as aws-lc does it: without cofactor, R byte for byte.
//!
//! Numbers modulo p = 2^255 - 19 have five limbs of 51 bits, so that sums have a bit to spare in the
//! 52 that the multiplier takes. Points are in extended coordinates (Hisil, Wong, Carter, Dawson:
//! Twisted Edwards Curves Revisited, 3.1 and 3.3), whose addition holds for any two points here.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_abs_epi64, _mm512_add_epi64, _mm512_and_si512,
    _mm512_cmpeq_epi64_mask, _mm512_cmplt_epi64_mask, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_blend_epi64, _mm512_mullo_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
};
use std::sync::LazyLock;

use aws_lc_rs::digest::{Context, SHA512};
use fearless_simd::Avx512;
use num_bigint::BigUint;

use super::limbs::{
    LANES, Lanes, by_eight, digits_of_4, digits_of_8, lanes_set, load, mask, set_lane, store,
};

const LIMBS: usize = 5;
const LIMB_BITS: usize = 51;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;
/// p in limbs.
const P: [u64; LIMBS] = [LIMB_MASK - 18, LIMB_MASK, LIMB_MASK, LIMB_MASK, LIMB_MASK];

/// A number modulo p in each lane. Every limb is below 2^51 + 2^15.
#[derive(Clone, Copy)]
struct Element([__m512i; LIMBS]);

impl Element {
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn same(limbs: [u64; LIMBS]) -> Element {
        Element(limbs.map(|limb| _mm512_set1_epi64(limb.cast_signed())))
    }

    /// Hands on what each limb has above 51 bits; limbs may have all 64.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn carried(limbs: [__m512i; LIMBS]) -> Element {
        let mask = _mm512_set1_epi64(LIMB_MASK.cast_signed());
        let carries = limbs.map(|limb| _mm512_srli_epi64::<51>(limb));
        let kept = limbs.map(|limb| _mm512_and_si512(limb, mask));
        // 2^255 is 19.
        let around = _mm512_mullo_epi64(carries[LIMBS - 1], _mm512_set1_epi64(19));
        let mut sums = kept;
        sums[0] = _mm512_add_epi64(kept[0], around);
        for i in 1..LIMBS {
            sums[i] = _mm512_add_epi64(kept[i], carries[i - 1]);
        }
        Element(sums)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn plus(self, other: Element) -> Element {
        let mut sums = self.0;
        for (sum, limb) in sums.iter_mut().zip(other.0) {
            *sum = _mm512_add_epi64(*sum, limb);
        }
        Element::carried(sums)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn minus(self, other: Element) -> Element {
        let mut sums = self.0;
        for ((sum, limb), p) in sums.iter_mut().zip(other.0).zip(P) {
            // Twice p, limb by limb, is more than is taken away.
            let above = _mm512_add_epi64(*sum, _mm512_set1_epi64((2 * p).cast_signed()));
            *sum = _mm512_sub_epi64(above, limb);
        }
        Element::carried(sums)
    }

    /// Sums of the lower and of the upper halves of products, by place, become an element.
    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn reduced(low: [__m512i; 2 * LIMBS], high: [__m512i; 2 * LIMBS]) -> Element {
        let nineteen = _mm512_set1_epi64(19);
        // An upper half counts 2^52, which is twice the next place.
        let place = |i: usize| _mm512_add_epi64(low[i], _mm512_slli_epi64::<1>(high[i]));
        Element::carried(std::array::from_fn(|i| {
            _mm512_add_epi64(place(i), _mm512_mullo_epi64(place(i + LIMBS), nineteen))
        }))
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn times(self, other: Element) -> Element {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 2 * LIMBS], [zero; 2 * LIMBS]);
        for i in 0..LIMBS {
            for j in 0..LIMBS {
                low[i + j] = _mm512_madd52lo_epu64(low[i + j], self.0[i], other.0[j]);
                high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], self.0[i], other.0[j]);
            }
        }
        Element::reduced(low, high)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn squared(self) -> Element {
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; 2 * LIMBS], [zero; 2 * LIMBS]);
        for i in 0..LIMBS {
            for j in i + 1..LIMBS {
                low[i + j] = _mm512_madd52lo_epu64(low[i + j], self.0[i], self.0[j]);
                high[i + j + 1] = _mm512_madd52hi_epu64(high[i + j + 1], self.0[i], self.0[j]);
            }
        }
        let mut low = low.map(|sum| _mm512_slli_epi64::<1>(sum));
        let mut high = high.map(|sum| _mm512_slli_epi64::<1>(sum));
        for i in 0..LIMBS {
            low[2 * i] = _mm512_madd52lo_epu64(low[2 * i], self.0[i], self.0[i]);
            high[2 * i + 1] = _mm512_madd52hi_epu64(high[2 * i + 1], self.0[i], self.0[i]);
        }
        Element::reduced(low, high)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn squared_times(self, times: u32) -> Element {
        (0..times).fold(self, |element, _| element.squared())
    }

    /// To the power of 2^250 - 1, and of 11.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn power_250(self) -> (Element, Element) {
        let two = self.squared();
        let nine = two.squared_times(2).times(self);
        let eleven = nine.times(two);
        // Of 2^n - 1, for the n in the name.
        let of_5 = eleven.squared().times(nine);
        let of_10 = of_5.squared_times(5).times(of_5);
        let of_20 = of_10.squared_times(10).times(of_10);
        let of_40 = of_20.squared_times(20).times(of_20);
        let of_50 = of_40.squared_times(10).times(of_10);
        let of_100 = of_50.squared_times(50).times(of_50);
        let of_200 = of_100.squared_times(100).times(of_100);
        (of_200.squared_times(50).times(of_50), eleven)
    }

    /// To the power of p - 2 = 2^255 - 21.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn inverse(self) -> Element {
        let (of_250, eleven) = self.power_250();
        of_250.squared_times(5).times(eleven)
    }

    /// To the power of (p - 5) / 8 = 2^252 - 3.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    #[inline]
    fn power_of_root(self) -> Element {
        let (of_250, _) = self.power_250();
        of_250.squared_times(2).times(self)
    }

    /// Takes the other's where the mask has its bit.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn or(self, mask: __mmask8, other: Element) -> Element {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_mask_blend_epi64(mask, *limb, other);
        }
        Element(limbs)
    }

    /// The one number between 0 and p in each lane.
    #[inline]
    fn numbers(self, here: Avx512) -> [[u64; LIMBS]; LANES] {
        let lanes = self.0.map(|limb| store(here, limb));
        std::array::from_fn(|lane| canonical(std::array::from_fn(|limb| lanes[limb][lane])))
    }
}

/// Limbs that may be somewhat above 51 bits, as the one number between 0 and p.
fn canonical(mut limbs: [u64; LIMBS]) -> [u64; LIMBS] {
    // Twice: the first carry around may leave the number at p or somewhat above.
    for _ in 0..2 {
        let mut carry = 0;
        for limb in &mut limbs {
            let sum = *limb + carry;
            *limb = sum & LIMB_MASK;
            carry = sum >> LIMB_BITS;
        }
        limbs[0] += 19 * carry;
    }
    let is_p_or_more = limbs[0] >= P[0] && limbs[1..].iter().all(|&limb| limb == LIMB_MASK);
    if is_p_or_more { [limbs[0] - P[0], 0, 0, 0, 0] } else { limbs }
}

fn limbs_of(bytes: &[u8; 32]) -> [u64; LIMBS] {
    std::array::from_fn(|i| {
        let bit = i * LIMB_BITS;
        let at = (bit / 8).min(24);
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        (u64::from_le_bytes(eight) >> (bit - 8 * at)) & LIMB_MASK
    })
}

/// The encoding of a point: y, and the lowest bit of x on top.
fn encoded(y: &[u64; LIMBS], x_is_odd: bool) -> [u8; 32] {
    let mut words = [0u64; 4];
    for (i, limb) in y.iter().enumerate() {
        let bit = i * LIMB_BITS;
        words[bit / 64] |= limb << (bit % 64);
        if bit % 64 + LIMB_BITS > 64 {
            words[bit / 64 + 1] |= limb >> (64 - bit % 64);
        }
    }
    words[3] |= u64::from(x_is_odd) << 63;
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
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
    let limbs = |number: BigUint| {
        let mut bytes = [0; 32];
        let held = (number % &p).to_bytes_le();
        bytes[..held.len()].copy_from_slice(&held);
        limbs_of(&bytes)
    };
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
    /// All bits set where the key's x is odd.
    x_is_odd: u8,
    /// Digits of k, from the highest on, and of S.
    of_key: [[i64; LANES]; DIGITS],
    of_base: [[i16; LANES]; DIGITS / 2],
}

/// The key in its SPKI (RFC 8410, 4).
pub(super) fn key_of(spki: &[u8]) -> Option<[u8; 32]> {
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
        let y = Element(lanes.y.each_ref().map(|limb| load(here, limb)));
        let yy = y.squared();
        let u = yy.minus(one);
        let v = yy.times(Element::same(constants.d)).plus(one);
        let v3 = v.squared().times(v);
        let root =
            u.times(v3).times(u.times(v3).times(v).times(v.squared()).times(v).power_of_root());
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
    let mut addend = multiples[0];
    for (multiple, size) in multiples.iter().zip(0..).skip(1) {
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
        std::array::from_fn(|limb| load(here, &entries.map(|entry| entry[which][limb])))
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
