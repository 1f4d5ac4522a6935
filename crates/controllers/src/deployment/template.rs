//! Pod templates: when two are the same, and the hash that names one.

use serde_json::Value;

use super::HASH;

/// Letters that spell no words: the alphabet of Kubernetes' generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether two templates are the same but for the hash label.
pub fn same(one: &Value, other: &Value) -> bool {
    bare(one) == bare(other)
}

fn bare(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

/// A hash of the template and the number of collisions so far, fit for a name.
///
/// Not the one that Kubernetes would compute (that hashes Go structures), and nobody may rely on its value.
pub fn hash(template: &Value, collisions: i32) -> String {
    let mut fnv = 0xcbf2_9ce4_8422_2325_u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            fnv = (fnv ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    feed(template, &mut eat);
    eat(&collisions.to_le_bytes());
    let mut rest = fnv ^ (fnv >> 32);
    let letter = |_| {
        let letter = ALPHABET[(rest % ALPHABET.len() as u64) as usize];
        rest /= ALPHABET.len() as u64;
        char::from(letter)
    };
    (0..10).map(letter).collect()
}

/// A value's text with keys in order, so that equal values hash alike.
fn feed(value: &Value, eat: &mut impl FnMut(&[u8])) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            eat(b"{");
            for (key, value) in fields {
                eat(key.as_bytes());
                eat(b":");
                feed(value, eat);
                eat(b",");
            }
            eat(b"}");
        }
        Value::Array(items) => {
            eat(b"[");
            for item in items {
                feed(item, eat);
                eat(b",");
            }
            eat(b"]");
        }
        plain => eat(plain.to_string().as_bytes()),
    }
}
