//! Quantities: `500m`, `1Gi`, `1e3` (the grammar of `k8s.io/apimachinery/pkg/api/resource`).

use std::{cmp::Ordering, fmt, str::FromStr};

/// An exact amount in billionths, of at most 2^63-1 whole units either way; what is finer is rounded away from zero.
///
/// Unlike upstream, an amount beyond that is refused, not cut down to it. Two quantities are equal when their
/// amounts are, however they were written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the grammar.
    #[error("must be a quantity: a number with an optional suffix, such as 500m, 2, 128Mi or 1G")]
    Form,
    /// More than 2^63-1 units.
    #[error("is too large for a quantity: at most 9223372036854775807 in magnitude")]
    TooLarge,
}

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;
const DECIMAL: [(&str, i32); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    /// None of anything.
    pub const ZERO: Self = Self { nanos: 0, form: Form::Decimal };

    /// Whole units, shown with decimal suffixes.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, form: Form::Decimal }
    }

    /// Bytes, shown with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self { nanos: i128::from(bytes) * NANO, form: Form::Binary }
    }

    /// Thousandths, shown with decimal suffixes.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: i128::from(millis) * (NANO / 1000), form: Form::Decimal }
    }

    /// Whole units, rounded up.
    pub fn units(self) -> i64 {
        clamp(ceil(self.nanos, NANO))
    }

    /// Thousandths, rounded up, at most `i64::MAX`.
    pub fn millis(self) -> i64 {
        clamp(ceil(self.nanos, NANO / 1000))
    }

    /// Less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The sum, at most the largest quantity; keeps the form of `self` unless that is zero.
    pub fn plus(self, other: Self) -> Self {
        let form = if self.is_zero() { other.form } else { self.form };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), form }
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn ceil(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        let (form, ten, two) = parse_suffix(suffix)?;
        let nanos = nanos(whole.trim_start_matches('0'), fraction.trim_end_matches('0'), ten, two)?;
        if nanos > MAX {
            return Err(QuantityError::TooLarge);
        }
        Ok(Self { nanos: if negative { -nanos } else { nanos }, form })
    }
}

/// The form of a suffix, and the powers of ten and of two that it stands for.
fn parse_suffix(suffix: &str) -> Result<(Form, i32, u32), QuantityError> {
    if let Some((_, two)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Form::Binary, 0, *two));
    }
    if suffix == "E" {
        return Ok((Form::Decimal, 18, 0));
    }
    if let Some((_, ten)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Form::Decimal, *ten, 0));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Form)?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Form);
    }
    let exponent = exponent.parse().unwrap_or(if exponent.starts_with('-') { -1000 } else { 1000 });
    Ok((Form::Exponent, i32::clamp(exponent, -1000, 1000), 0))
}

/// `whole.fraction * 10^ten * 2^two` in billionths, rounded up.
fn nanos(whole: &str, fraction: &str, ten: i32, two: u32) -> Result<i128, QuantityError> {
    // The largest quantity has 28 digits in billionths, and 38 digits fit. What is cut off here is smaller than any
    // billionth, whatever the suffix that allows the rest to pass.
    if whole.len() > 28 {
        return Err(QuantityError::TooLarge);
    }
    let (kept, lost) = fraction.split_at(fraction.len().min(18).min(38 - whole.len()));
    let digits = [whole, kept].concat();
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| QuantityError::Form)? };
    let sticky = !lost.is_empty();
    let scaled = mantissa.checked_mul(1i128 << two).ok_or(QuantityError::TooLarge)?;
    let exponent = ten + 9 - kept.len() as i32;
    if exponent >= 0 {
        if scaled == 0 {
            return Ok(sticky.into());
        }
        let factor = 10i128.checked_pow(exponent as u32).ok_or(QuantityError::TooLarge)?;
        return scaled.checked_mul(factor).ok_or(QuantityError::TooLarge);
    }
    match 10i128.checked_pow(exponent.unsigned_abs()) {
        Some(divisor) => Ok(scaled / divisor + i128::from(scaled % divisor != 0 || sticky)),
        None => Ok((scaled != 0 || sticky).into()),
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the largest suffix that allows that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        if matches!(self.form, Form::Binary) && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            let units = self.nanos / NANO;
            let steps = (units.trailing_zeros() / 10).min(6);
            let suffix = if steps == 0 { "" } else { BINARY[steps as usize - 1].0 };
            return write!(f, "{}{suffix}", units >> (10 * steps));
        }
        let (mut number, mut exponent) = (self.nanos, -9);
        while number % 1000 == 0 && exponent < 18 {
            (number, exponent) = (number / 1000, exponent + 3);
        }
        match (self.form, exponent) {
            (_, 0) => write!(f, "{number}"),
            (Form::Exponent, _) => write!(f, "{number}e{exponent}"),
            (_, 18) => write!(f, "{number}E"),
            _ => write!(f, "{number}{}", DECIMAL[(exponent / 3 + 3) as usize].0),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn canonical_forms_are_kubectl_s() {
        // Each as `kubectl set image --local` (1.33) prints it back.
        for (written, canonical) in [
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.1m", "100u"),
            ("1500m", "1500m"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("100000000", "100M"),
            ("1Ki", "1Ki"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            (".5", "500m"),
            ("1.0", "1"),
            ("-1500m", "-1500m"),
            ("0Gi", "0"),
            ("1E", "1E"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(written.parse::<Quantity>().map(|q| q.to_string()), Ok(canonical.to_owned()), "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", ".", "1.2.3", "NaN", "inf", "1 ", " 1", "1ki", "1K", "1e", "1e+", "0x10", "1Mi5", "ⅷ"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Form), "{text:?}");
        }
        let endless = "9".repeat(100_000);
        for text in ["9223372036854775808", "16Ei", "100E", "1e400", "-1e99", &endless] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::TooLarge), "{text:.20}");
        }
    }

    #[test]
    fn amounts_compare_whatever_their_form() {
        let q = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(q("1Gi"), q("1073741824"));
        assert!(q("1G") < q("1Gi") && q("-1") < q("0") && q("999m") < q("1"));
        assert_eq!((q("1500m").units(), q("1500m").millis(), q("-1500m").units()), (2, 1500, -1));
        assert_eq!(q("500m").plus(q("500m")).to_string(), "1");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn canonical_form_is_stable(text in "[-+]?[0-9]{1,12}(\\.[0-9]{0,12})?(n|u|m|k|M|Ki|Mi|Gi|e-?[0-9]|E[0-9])?") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let shown = quantity.to_string();
                let again: Quantity = shown.parse().unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), shown);
            }
        }
    }
}
