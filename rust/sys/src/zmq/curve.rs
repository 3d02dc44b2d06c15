//! Keys of CURVE: by them a peer knows who the other one is, and nobody else reads what they say.

use std::fmt;

use super::error::ZmqError;
use super::library::Library;
use super::socket::Socket;

const CURVE_SERVER: i32 = 47;
const CURVE_PUBLICKEY: i32 = 48;
const CURVE_SECRETKEY: i32 = 49;
const CURVE_SERVERKEY: i32 = 50;
const ZAP_DOMAIN: i32 = 55;
const ZAP_ENFORCE_DOMAIN: i32 = 93;

/// The one domain of our gate.
pub(super) const DOMAIN: &str = "headrace";

/// The digits of Z85, by value.
const DIGITS: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const KEY_BYTES: usize = 32;
const KEY_DIGITS: usize = KEY_BYTES / 4 * 5;

/// A public or secret key. It is written as 40 digits of Z85.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key that is written so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != KEY_DIGITS {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (word, digits) in key.as_chunks_mut::<4>().0.iter_mut().zip(text.as_bytes().chunks(5)) {
            let mut number = 0_u32;
            for digit in digits {
                let value = DIGITS.iter().position(|known| known == digit)? as u32;
                number = number.checked_mul(85)?.checked_add(value)?;
            }
            *word = number.to_be_bytes();
        }
        Some(Self(key))
    }

    /// How it is written.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(KEY_DIGITS);
        for word in self.0.as_chunks::<4>().0 {
            let number = u32::from_be_bytes(*word);
            text.extend((0..5).rev().map(|place| char::from(DIGITS[(number / 85_u32.pow(place) % 85) as usize])));
        }
        text
    }

    /// The key of these 32 bytes.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Key {
    /// It may be a secret one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What one side needs of keys.
#[derive(Clone, Debug)]
pub struct OwnKeys {
    /// Its public key.
    pub public: Key,
    /// Its secret key.
    pub secret: Key,
}

impl OwnKeys {
    /// A new pair.
    ///
    /// # Errors
    /// When libzmq was built without CURVE.
    pub fn generate(library: &Library) -> Result<Self, ZmqError> {
        let functions = library.functions();
        let (mut public, mut secret) = ([0_u8; KEY_DIGITS + 1], [0_u8; KEY_DIGITS + 1]);
        // SAFETY: libzmq writes 40 digits and a zero byte to each, for which both have room.
        let made = unsafe { (functions.curve_keypair)(public.as_mut_ptr().cast(), secret.as_mut_ptr().cast()) };
        let key = |text: &[u8]| std::str::from_utf8(&text[..KEY_DIGITS]).ok().and_then(Key::parse);
        match (made, key(&public), key(&secret)) {
            (0, Some(public), Some(secret)) => Ok(Self { public, secret }),
            _ => Err(ZmqError::last(functions, "zmq_curve_keypair")),
        }
    }
}

/// What a peer needs to reach a broker over the network.
#[derive(Clone, Debug)]
pub struct PeerKeys {
    /// Its own.
    pub own: OwnKeys,
    /// The public key of the broker.
    pub broker: Key,
}

impl Socket {
    /// Has every endpoint that is bound from now on speak with those alone whom the gate lets in. Where there is no gate, nobody is
    /// let in.
    pub(super) fn guard(&mut self, keys: &OwnKeys) -> Result<(), ZmqError> {
        self.set_int(ZAP_ENFORCE_DOMAIN, 1)?;
        self.set(ZAP_DOMAIN, DOMAIN.as_bytes())?;
        self.set_int(CURVE_SERVER, 1)?;
        self.set(CURVE_SECRETKEY, &keys.secret.0)
    }

    /// Has connections that are made from now on show these keys, and accept nobody but the broker that has that key.
    pub(super) fn show(&mut self, keys: &PeerKeys) -> Result<(), ZmqError> {
        self.set(CURVE_SERVERKEY, &keys.broker.0)?;
        self.set(CURVE_PUBLICKEY, &keys.own.public.0)?;
        self.set(CURVE_SECRETKEY, &keys.own.secret.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_its_standard_has_it() {
        // The test vector of ZeroMQ's RFC 32, four times over.
        let key = Key::parse(&"HelloWorld".repeat(4)).unwrap();
        assert_eq!(key.0[..8], [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]);
        assert_eq!(key.text(), "HelloWorld".repeat(4));
        assert_eq!(key.0[24..], [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B]);
        for bad in ["", "HelloWorld", &"#".repeat(40), &"~".repeat(40), &"ä".repeat(20)] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}
