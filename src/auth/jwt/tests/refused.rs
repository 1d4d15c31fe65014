//! Tokens and key sets that are not taken, and that none of them does more than that.

use ring::hmac;

use super::signer::encode;
use super::*;

/// R3, R11.
#[test]
fn what_is_not_as_it_must_be_is_refused() {
    let signer = Signer::new(Algorithm::Rs256);
    let stranger = Signer::named(Algorithm::EdDsa, "RS256");
    let door = door(options(), &[&signer]);
    let good = signer.sign(&claims());
    let refused = |what: &str, token: &str| {
        let found = check(&door, token).err();
        assert_eq!(found, Some(AuthError::Invalid), "{what}: {token}");
    };
    for (what, changes) in [
        ("no issuer", json!({"iss": null})),
        ("another issuer", json!({"iss": "https://id.example.org/"})),
        ("no exp", json!({"exp": null})),
        ("expired", json!({"exp": NOW})),
        ("expired within the leeway", json!({"exp": NOW - 1})),
        ("exp of 1969", json!({"exp": -1})),
        ("exp a text", json!({"exp": "2000000000"})),
        ("exp a list", json!({"exp": [NOW + 600]})),
        ("not yet valid", json!({"nbf": NOW + 61})),
        ("issued in the future", json!({"iat": NOW + 61})),
        ("nbf of no time", json!({"nbf": true})),
        ("iat of no time", json!({"iat": "now"})),
        ("no subject", json!({"sub": null})),
        ("an empty subject", json!({"sub": ""})),
        ("a blank subject", json!({"sub": " "})),
        ("a subject with a line end", json!({"sub": "a\nb"})),
        ("a subject that is a number", json!({"sub": 1})),
        ("a long subject", json!({"sub": "x".repeat(257)})),
    ] {
        refused(what, &signer.sign(&claims_with(changes)));
    }
    for (what, header) in [
        ("none", json!({"alg": "none", "kid": "RS256"})),
        ("nOnE", json!({"alg": "nOnE", "kid": "RS256"})),
        ("no alg", json!({"kid": "RS256"})),
        ("alg a list", json!({"alg": ["RS256"], "kid": "RS256"})),
        ("unknown alg", json!({"alg": "RS1", "kid": "RS256"})),
        (
            "crit",
            json!({"alg": "RS256", "kid": "RS256", "crit": ["exp"], "exp": 1}),
        ),
        (
            "crit and b64",
            json!({"alg": "RS256", "kid": "RS256", "crit": ["b64"], "b64": false}),
        ),
        (
            "empty crit",
            json!({"alg": "RS256", "kid": "RS256", "crit": []}),
        ),
        (
            "typ",
            json!({"alg": "RS256", "kid": "RS256", "typ": "dpop+jwt"}),
        ),
        (
            "typ a number",
            json!({"alg": "RS256", "kid": "RS256", "typ": 1}),
        ),
        ("unknown kid", json!({"alg": "RS256", "kid": "RS257"})),
        ("kid a number", json!({"alg": "RS256", "kid": 1})),
        ("long kid", json!({"alg": "RS256", "kid": "x".repeat(257)})),
        ("header a list", json!([])),
    ] {
        refused(what, &signer.sign_with(&header, &claims()));
    }
    let forged = |header: Value| stranger.sign_with(&header, &claims());
    refused("by a stranger", &forged(signer.header()));
    refused("by a stranger's algorithm", &forged(stranger.header()));
    let with_key = json!({"alg": "EdDSA", "kid": "RS256", "jwk": stranger.jwk()});
    refused("with a key in its header", &forged(with_key));
    refused("unsigned", &good[..=good.rfind('.').unwrap()]);
    refused("without a signature", &good[..good.rfind('.').unwrap()]);
    refused("with a part more", &format!("{good}.e30"));
    refused("with a dot more", &format!("{good}."));
    refused("with a dot in front", &format!(".{good}"));
    refused("with padding", &format!("{good}=="));
    refused("with padding within", &good.replacen('.', "=.", 1));
    refused("with a space", &format!("{good} "));
    refused("cut off", &good[..good.len() - 1]);
    refused("of other base64", &good.replace(['-', '_'], "/"));
    refused("nothing", "");
    refused("dots", "..");
    let claims = claims().to_string();
    let header = signer.header().to_string();
    let double = claims.replacen('{', "{\"sub\":\"root\",", 1);
    refused("a claim twice", &signer.sign_text(&header, &double));
    let double = header.replacen('{', "{\"alg\":\"RS256\",", 1);
    refused("alg twice", &signer.sign_text(&double, &claims));
    let deep = claims.replacen(
        '{',
        &format!("{{\"x\":{}{},", "[".repeat(99), "]".repeat(99)),
        1,
    );
    refused("deep", &signer.sign_text(&header, &deep));
    let huge = claims.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(8000)), 1);
    refused("huge", &signer.sign_text(&header, &huge));
    refused("no object", &signer.sign_text(&header, "1"));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, signer.jwk().to_string().as_bytes());
    let message = format!(
        "{}.{}",
        encode(r#"{"alg":"HS256","kid":"RS256"}"#),
        encode(&claims)
    );
    let tag = encode(hmac::sign(&secret, message.as_bytes()));
    refused("signed with the public key", &format!("{message}.{tag}"));
    assert!(check(&door, &good).is_ok());
}

#[test]
fn what_looks_odd_and_is_right_is_taken() {
    let signer = Signer::new(Algorithm::EdDsa);
    let door = door(options(), &[&signer]);
    for header in [
        json!({"alg": "EdDSA"}),
        json!({"alg": "EdDSA", "typ": "jwt"}),
        json!({"alg": "EdDSA", "typ": "JWT"}),
        json!({"alg": "EdDSA", "typ": "AT+JWT"}),
        json!({"alg": "EdDSA", "typ": "application/at+jwt"}),
        json!({"alg": "EdDSA", "kid": "EdDSA", "x5t": "abc", "jku": "https://evil.example"}),
    ] {
        let token = signer.sign_with(&header, &claims());
        assert!(check(&door, &token).is_ok(), "{header}");
    }
    for changes in [
        json!({"nbf": NOW + 60, "iat": NOW + 60}),
        json!({"nbf": null, "iat": null}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"exp": u64::MAX}),
        json!({"sub": "x".repeat(256)}),
    ] {
        let token = signer.sign(&claims_with(changes.clone()));
        assert!(check(&door, &token).is_ok(), "{changes}");
    }
}

#[test]
fn only_configured_algorithms_are_taken() {
    let (rs, ps) = (Signer::new(Algorithm::Rs256), Signer::new(Algorithm::Ps256));
    let options = JwtOptions {
        algorithms: vec![Algorithm::Ps256],
        ..options()
    };
    let door = door(options, &[&rs, &ps]);
    assert_eq!(
        check(&door, &rs.sign(&claims())).err(),
        Some(AuthError::Invalid)
    );
    assert!(check(&door, &ps.sign(&claims())).is_ok());
}

#[test]
fn keys_that_make_no_sense_are_left_out() {
    let (rsa, ec) = (
        Signer::new(Algorithm::Rs256).jwk(),
        Signer::new(Algorithm::Es256).jwk(),
    );
    let (okp, p384) = (
        Signer::new(Algorithm::EdDsa).jwk(),
        Signer::new(Algorithm::Es384).jwk(),
    );
    let number = |bytes: usize| {
        let mut number = vec![0xff; bytes];
        number[bytes - 1] = 0xfd;
        json!(encode(number))
    };
    for (key, changes, expected) in [
        (&rsa, json!({}), true),
        (&rsa, json!({"alg": null, "use": null, "kid": null}), true),
        (&rsa, json!({"key_ops": ["verify"]}), true),
        (&rsa, json!({"n": number(256)}), true),
        (&rsa, json!({"n": number(1024)}), true),
        (&rsa, json!({"n": number(255)}), false),
        (&rsa, json!({"n": number(1025)}), false),
        (&rsa, json!({"n": encode([0; 256])}), false),
        (&rsa, json!({"n": ""}), false),
        (&rsa, json!({"e": "AQ"}), false),
        (&rsa, json!({"e": "AA"}), false),
        (&rsa, json!({"e": encode([255; 6])}), false),
        (&rsa, json!({"e": 65537}), false),
        (&rsa, json!({"alg": "RSA-OAEP"}), false),
        (&rsa, json!({"use": "enc"}), false),
        (&rsa, json!({"use": ["sig"]}), false),
        (&rsa, json!({"key_ops": ["sign"]}), false),
        (&rsa, json!({"kid": 7}), false),
        (&rsa, json!({"kty": "oct", "k": "AAAA"}), false),
        (&rsa, json!({"kty": null}), false),
        (&ec, json!({}), true),
        (&ec, json!({"crv": "P-521"}), false),
        (&ec, json!({"crv": "secp256k1"}), false),
        (&ec, json!({"crv": "P-384"}), false),
        (&ec, json!({"x": encode([1; 31])}), false),
        (&ec, json!({"y": null}), false),
        (&p384, json!({}), true),
        (&okp, json!({}), true),
        (&okp, json!({"crv": "X25519"}), false),
        (&okp, json!({"x": encode([1; 33])}), false),
        (&okp, json!({"x": "?"}), false),
    ] {
        let mut key = key.clone();
        for (name, value) in changes.as_object().unwrap() {
            match value.is_null() {
                true => drop(key.as_object_mut().unwrap().remove(name)),
                false => key[name] = value.clone(),
            }
        }
        let found = keys::read_set(&json!({ "keys": [key, 1, null] }).to_string()).unwrap();
        assert_eq!(found.len(), usize::from(expected), "{changes}");
    }
    let many = |count: usize| json!({ "keys": vec![okp.clone(); count] }).to_string();
    assert_eq!(keys::read_set(&many(64)).map(|keys| keys.len()), Ok(64));
    for text in [
        &many(65),
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[],"keys":[]}"#,
    ] {
        assert!(keys::read_set(text).is_err(), "{text}");
    }
    assert!(keys::read_set(&format!("{{\"keys\":[]{}}}", " ".repeat(256 << 10))).is_err());
}

/// Without a `kid`, or where a `kid` stands twice, nobody guesses.
#[test]
fn a_key_is_found_by_name_or_because_it_is_the_only_one() {
    let (one, two) = (
        Signer::named(Algorithm::EdDsa, "1"),
        Signer::named(Algorithm::EdDsa, "2"),
    );
    let (twin, es) = (
        Signer::named(Algorithm::EdDsa, "1"),
        Signer::named(Algorithm::Es256, "1"),
    );
    let nameless = json!({"alg": "EdDSA"});
    for (keys, named, unnamed) in [
        (&[&one][..], true, true),
        (&[&one, &es], true, true),
        (&[&one, &two], true, false),
        (&[&one, &twin], false, false),
        (&[&two, &es], false, false),
    ] {
        let door = door(options(), keys);
        assert_eq!(check(&door, &one.sign(&claims())).is_ok(), named);
        let token = one.sign_with(&nameless, &claims());
        assert_eq!(check(&door, &token).is_ok(), unnamed);
    }
}

#[test]
fn nothing_that_was_changed_gets_in() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let signers = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256].map(Signer::new);
    let all: Vec<&Signer> = signers.iter().collect();
    let set = key_set(&all);
    let letters = b"ABCXYZabcxyz0189-_.=+/ \"{}";
    for signer in &signers {
        let token = signer.sign(&claims());
        for _ in 0..2000 {
            let mut bytes = token.clone().into_bytes();
            for _ in 0..=next(3) {
                let (at, letter) = (next(bytes.len()), letters[next(letters.len())]);
                match next(4) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, letter),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = letter,
                }
            }
            let changed = String::from_utf8(bytes).unwrap();
            let door = door(options(), &[signer]);
            let taken = check(&door, &changed).is_ok();
            assert_eq!(taken, changed == token, "{token}\n{changed}");
        }
    }
    for _ in 0..2000 {
        let mut bytes = set.clone().into_bytes();
        for _ in 0..=next(5) {
            let (at, letter) = (next(bytes.len()), letters[next(letters.len())]);
            bytes[at] = letter;
        }
        // Whatever is left of the keys must not panic when it is used.
        let text = String::from_utf8(bytes).unwrap();
        for key in keys::read_set(&text).unwrap_or_default() {
            for algorithm in Algorithm::ALL {
                assert!(!key.verify(algorithm, b"x", &[1; 64]));
            }
        }
    }
}
