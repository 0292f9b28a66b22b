//! Who may log in, and whose rows each login sees.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion_postgres::pgwire::api::auth::sasl::scram::{SCRAM_ITERATIONS, gen_salted_password};
use datafusion_postgres::pgwire::api::auth::{AuthSource, LoginInfo, Password};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use serde::Deserialize;

use crate::ServeError;
use crate::catalog::{AccountScope, Scope};

/// Begins every stored password: SCRAM-SHA-256 with the salted password, as the server needs it.
const SCHEME: &str = "scram-sha-256";
const SALT_BYTES: usize = 16;
const SALTED_BYTES: usize = 32;
/// Largest file of logins.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Shortest password that is taken.
const PASSWORD_CHARS_MIN: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    login: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    password: String,
    /// `SA/VA`, or `SA` for all its virtual accounts; all rows where there is no list.
    accounts: Option<Vec<String>>,
}

#[derive(Clone)]
struct Stored {
    salt: Vec<u8>,
    salted: Vec<u8>,
}

/// Salted passwords and scopes, by login.
#[derive(Clone)]
pub struct Logins {
    all: BTreeMap<String, (Stored, Scope)>,
    /// Makes up an answer for who does not exist, the same each time.
    unknown: [u8; SALTED_BYTES],
}

// Passwords are not for logs.
impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.all.keys()).finish()
    }
}

impl Logins {
    /// Reads a file of logins: `[[login]]` with `name`, `password` (made by [`hash_password`]) and, for a
    /// login that sees some accounts alone, `accounts`.
    ///
    /// # Errors
    /// If it cannot be read, or is wrong: every refusal names the login.
    pub fn read(path: &Path) -> Result<Logins, ServeError> {
        let failed = |source| ServeError::File {
            what: "cannot read the logins in",
            path: path.display().to_string(),
            source,
        };
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
            return Err(ServeError::Logins(format!(
                "{} is larger than {FILE_BYTES_MAX} bytes",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Logins::parse(&text).map_err(|error| match error {
            ServeError::Logins(what) => ServeError::Logins(format!("{}: {what}", path.display())),
            other => other,
        })
    }

    fn parse(text: &str) -> Result<Logins, ServeError> {
        let file: File = toml::from_str(text).map_err(|e| ServeError::Logins(e.to_string()))?;
        let mut logins = Logins { all: BTreeMap::new(), unknown: random()? };
        for entry in file.login {
            let name = entry.name;
            let wrong = |what: String| ServeError::Logins(format!("login '{name}': {what}"));
            if name.is_empty() || name.len() > 63 {
                return Err(wrong("a name has 1 to 63 bytes".to_owned()));
            }
            let stored = parse_stored(&entry.password).ok_or_else(|| {
                wrong(
                    "its password is none that `rumledger serve --hash-password` printed"
                        .to_owned(),
                )
            })?;
            let scope = match entry.accounts {
                None => Scope::All,
                Some(accounts) if accounts.is_empty() => {
                    return Err(wrong(
                        "an empty list of accounts shows nothing; leave it out to show all"
                            .to_owned(),
                    ));
                }
                Some(accounts) => Scope::Accounts(
                    accounts
                        .iter()
                        .map(|text| AccountScope::parse(text))
                        .collect::<Result<_, _>>()
                        .map_err(wrong)?,
                ),
            };
            if logins.all.insert(name.clone(), (stored, scope)).is_some() {
                return Err(ServeError::Logins(format!("login '{name}' is there twice")));
            }
        }
        if logins.all.is_empty() {
            return Err(ServeError::Logins("there is no [[login]]".to_owned()));
        }
        Ok(logins)
    }

    /// One login that sees everything, with a password made up now.
    ///
    /// # Errors
    /// If the machine gives no randomness.
    pub fn of_one(name: &str) -> Result<(Logins, String), ServeError> {
        let password = STANDARD.encode(random::<15>()?);
        let stored = salt(&password)?;
        let all = BTreeMap::from([(name.to_owned(), (stored, Scope::All))]);
        Ok((Logins { all, unknown: random()? }, password))
    }

    #[must_use]
    pub(crate) fn scope(&self, name: &str) -> Option<&Scope> {
        self.all.get(name).map(|(_, scope)| scope)
    }
}

#[allow(elided_lifetimes_in_paths, reason = "the trait has it so")]
#[async_trait]
impl AuthSource for Logins {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        let name = login.user().ok_or(PgWireError::UserNameRequired)?;
        if let Some((stored, _)) = self.all.get(name) {
            return Ok(Password::new(Some(stored.salt.clone()), stored.salted.clone()));
        }
        // Who is unknown goes through the same exchange and fails at its end, with a salt that stays the
        // same (RFC 5802, section 9): names cannot be tried out.
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.unknown);
        let made_up = aws_lc_rs::hmac::sign(&key, name.as_bytes());
        let salt = made_up.as_ref()[..SALT_BYTES].to_vec();
        let nobody = aws_lc_rs::hmac::sign(&key, made_up.as_ref());
        Ok(Password::new(Some(salt), nobody.as_ref().to_vec()))
    }
}

/// What a file of logins holds for a password. It is as good as the password to who has it: such a file
/// is a secret.
///
/// # Errors
/// If the password is too short, or the machine gives no randomness.
pub fn hash_password(password: &str) -> Result<String, ServeError> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(ServeError::Logins(format!(
            "a password has at least {PASSWORD_CHARS_MIN} characters"
        )));
    }
    let Stored { salt, salted } = salt(password)?;
    Ok(format!("{SCHEME}${}${}", STANDARD.encode(salt), STANDARD.encode(salted)))
}

fn salt(password: &str) -> Result<Stored, ServeError> {
    let salt = random::<SALT_BYTES>()?.to_vec();
    let salted = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
    Ok(Stored { salt, salted })
}

fn parse_stored(text: &str) -> Option<Stored> {
    let (salt, salted) = text.strip_prefix(SCHEME)?.strip_prefix('$')?.split_once('$')?;
    let stored =
        Stored { salt: STANDARD.decode(salt).ok()?, salted: STANDARD.decode(salted).ok()? };
    (stored.salt.len() == SALT_BYTES && stored.salted.len() == SALTED_BYTES).then_some(stored)
}

fn random<const N: usize>() -> Result<[u8; N], ServeError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| ServeError::Randomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Logins::parse(text).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_file_of_logins_is_taken_or_refused_with_the_login() {
        let hashed = hash_password("correct horse").unwrap();
        let good = format!(
            "[[login]]\nname='a'\npassword='{hashed}'\n[[login]]\nname='b'\npassword='{hashed}'\naccounts=['S/V','T']"
        );
        let logins = Logins::parse(&good).unwrap();
        assert_eq!(logins.scope("a"), Some(&Scope::All));
        let some = |smart: &str, virtual_: Option<&str>| AccountScope {
            smart: smart.into(),
            virtual_: virtual_.map(Into::into),
        };
        assert_eq!(
            logins.scope("b"),
            Some(&Scope::Accounts(vec![some("S", Some("V")), some("T", None)]))
        );
        assert_eq!(logins.scope("c"), None);
        for (text, expected) in [
            ("", "there is no [[login]]"),
            ("[[login]]\nname='a'\npassword='secret'", "login 'a': its password is none that"),
            ("[[login]]\nname='a'\npassword='x'\nsuperuser=true", "unknown field `superuser`"),
        ] {
            assert!(refusal(text).contains(expected), "{text}: {}", refusal(text));
        }
        let one = format!("[[login]]\nname='a'\npassword='{hashed}'\n");
        assert!(refusal(&format!("{one}{one}")).contains("login 'a' is there twice"));
        assert!(refusal(&format!("{one}accounts=[]")).contains("shows nothing"));
        assert!(refusal(&format!("{one}accounts=['/V']")).contains("'/V'"));
        assert!(refusal(&one.replace("'a'", "''")).contains("a name has 1 to 63 bytes"));
    }

    #[test]
    fn passwords_are_salted_and_not_shown() {
        let (a, b) = (hash_password("correct horse").unwrap(), hash_password("correct horse"));
        assert_ne!(a, b.unwrap());
        assert!(hash_password("short").is_err());
        let stored = parse_stored(&a).unwrap();
        assert_eq!(
            stored.salted,
            gen_salted_password("correct horse", &stored.salt, SCRAM_ITERATIONS)
        );
        let (logins, password) = Logins::of_one("me").unwrap();
        assert_eq!(format!("{logins:?}"), "{\"me\"}");
        assert_eq!(password.len(), 20);
    }
}
