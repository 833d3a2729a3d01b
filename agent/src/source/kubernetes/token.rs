//! The token by which the agent is known to the API, from a file that is replaced before it expires.
//!
//! Not left to the library, which goes by the wall clock: where that is set back, it would read the file again only when
//! the clock has caught up, and the token would have expired.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderValue;

/// After so long the file is read again.
const FRESH: Duration = Duration::from_secs(50);

pub(super) struct Token {
    path: PathBuf,
    read: Mutex<Option<Read>>,
}

struct Read {
    at: Instant,
    header: HeaderValue,
}

impl Token {
    pub(super) fn new(path: PathBuf) -> Self {
        let read = Mutex::new(None);
        Self { path, read }
    }

    /// What requests are to say. A file that cannot be read any more leaves what it said before: some take it away on purpose.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut read = self.lock();
        let is_fresh = |read: &Read| read.at.elapsed() < FRESH;
        if !read.as_ref().is_some_and(is_fresh)
            && let Some(header) = self.read()
        {
            let at = Instant::now();
            *read = Some(Read { at, header });
        }
        read.as_ref().map(|read| read.header.clone())
    }

    /// The server does not take it: the next request looks whether there is another.
    pub(super) fn refused(&self) {
        let mut read = self.lock();
        if let Some(header) = self.read() {
            let at = Instant::now();
            *read = Some(Read { at, header });
        }
    }

    fn read(&self) -> Option<HeaderValue> {
        let text = fs::read_to_string(&self.path).inspect_err(|error| {
            tracing::warn!(%error, path = %self.path.display(), "the API's token cannot be read");
        });
        let header = HeaderValue::try_from(format!("Bearer {}", text.ok()?.trim()));
        let mut header = header.ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        f.debug_struct("Token")
            .field("path", path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_refused_is_read_anew_and_one_that_is_gone_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::new(path.clone());
        assert_eq!(token.header(), None);
        fs::write(&path, "one\n").unwrap();
        assert_eq!(token.header().unwrap(), "Bearer one");
        fs::write(&path, "two").unwrap();
        assert_eq!(token.header().unwrap(), "Bearer one");
        token.refused();
        assert_eq!(token.header().unwrap(), "Bearer two");
        fs::remove_file(&path).unwrap();
        token.refused();
        assert_eq!(token.header().unwrap(), "Bearer two");
    }
}
