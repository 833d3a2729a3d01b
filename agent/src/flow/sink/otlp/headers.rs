//! Headers that a collector wants, mostly to know who is there. Their values are secrets: nothing shows them.

use std::{collections::BTreeMap, fmt, fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

/// What stands for a value where settings are printed.
pub(crate) const HIDDEN: &str = "(hidden)";

/// More than any secret has.
const LARGEST: u64 = 64 << 10;

/// What is said with each request anyway, and how it travels.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "accept-encoding",
];

/// Prints as names without values.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(BTreeMap<String, String>);

impl Headers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    ///
    /// What was expected instead, without the value.
    pub(crate) fn insert(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (name, value) = checked(name, value)?;
        let value = value.to_str().unwrap_or_default().to_owned();
        match self.0.insert(name.to_string(), value) {
            Some(_) => Err("a name that no other header has, also in another case".to_owned()),
            None => Ok(()),
        }
    }

    /// With those of a file, which is read each time, and has the last word.
    ///
    /// # Errors
    ///
    /// The file cannot be read as headers.
    pub(super) fn with(&self, file: Option<&Path>) -> anyhow::Result<HeaderMap> {
        let mut all = HeaderMap::new();
        for (name, value) in &self.0 {
            let (name, value) = checked(name, value).map_err(anyhow::Error::msg)?;
            all.insert(name, value);
        }
        if let Some(path) = file {
            let told = || format!("headers {}", path.display());
            for (name, value) in read(path).with_context(told)? {
                all.insert(name, value);
            }
        }
        Ok(all)
    }
}

/// `NAME: VALUE`, a line each; empty ones and those that begin with `#` say nothing.
fn read(path: &Path) -> anyhow::Result<Vec<(HeaderName, HeaderValue)>> {
    // A pipe would have the reader wait.
    ensure!(path.metadata()?.is_file(), "it is no file");
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_string(&mut text)?;
    ensure!(
        u64::try_from(text.len()).is_ok_and(|length| length <= LARGEST),
        "it has more than {LARGEST} bytes"
    );
    let mut all = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else {
            bail!("line {number} is not NAME: VALUE");
        };
        let header = checked(name.trim(), value.trim());
        all.push(header.map_err(|expected| anyhow::anyhow!("line {number}: {expected}"))?);
    }
    Ok(all)
}

/// # Errors
///
/// What was expected instead, without the value.
fn checked(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let is_reserved =
        |name: &HeaderName| RESERVED.contains(&name.as_str()) || name.as_str().starts_with("grpc-");
    let name = match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) if is_reserved(&name) => {
            return Err(format!(
                "another header than `{name}`, which says how records travel"
            ));
        }
        Ok(name) => name,
        Err(_) => return Err("a header's name of letters, digits and `-`".to_owned()),
    };
    if value == HIDDEN {
        let expected = format!("the value of `{name}` itself: settings are printed without it");
        return Err(expected);
    }
    let is_text = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let value = HeaderValue::from_str(value).ok().filter(|_| is_text);
    let mut value = value.ok_or_else(|| format!("a value of `{name}` of visible ASCII"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.keys().map(|name| (name, HIDDEN)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn values_are_sent_and_not_shown() {
        let mut headers = Headers::default();
        headers.insert("Authorization", "Bearer s3cret").unwrap();
        assert_eq!(
            headers.with(None).unwrap()["authorization"],
            "Bearer s3cret"
        );
        let printed = serde_json::to_string(&headers).unwrap();
        assert_eq!(printed, r#"{"authorization":"(hidden)"}"#);
        let debug = format!("{headers:?} {:?}", headers.with(None).unwrap());
        assert!(!debug.contains("s3cret"), "{debug}");
    }

    #[test]
    fn headers_that_cannot_be_meant_are_refused_without_their_values() {
        for (name, value) in [
            ("", "s3cret"),
            ("a b", "s3cret"),
            ("Host", "s3cret"),
            ("grpc-timeout", "s3cret"),
            ("a", "s3cret\r\nb: c"),
            ("a", "s3cr\u{e9}t"),
            ("a", HIDDEN),
        ] {
            let told = Headers::default().insert(name, value).unwrap_err();
            assert!(!told.contains("s3cr"), "{told}");
        }
        let mut twice = Headers::default();
        twice.insert("a", "1").unwrap();
        twice.insert("A", "2").unwrap_err();
    }

    #[test]
    fn a_file_of_headers_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let mut headers = Headers::default();
        headers.insert("a", "1").unwrap();
        fs::write(&path, "# token\n\nA: 2\nb:3:4\n").unwrap();
        let all = headers.with(Some(&path)).unwrap();
        assert!(all["a"] == "2" && all["b"] == "3:4");
        fs::write(&path, "b: 5").unwrap();
        let all = headers.with(Some(&path)).unwrap();
        assert!(all["a"] == "1" && all["b"] == "5");
        for bad in ["s3cret", "host: s3cret", "a: s3cr\u{1}et", "a: \u{e9}"] {
            fs::write(&path, bad).unwrap();
            let told = format!("{:#}", headers.with(Some(&path)).unwrap_err());
            assert!(!told.contains("s3c") && told.contains("line 1"), "{told}");
        }
        fs::write(&path, "x".repeat(65 << 10)).unwrap();
        headers.with(Some(&path)).unwrap_err();
        headers.with(Some(folder.path())).unwrap_err();
        headers.with(Some(Path::new("/nowhere"))).unwrap_err();
    }
}
