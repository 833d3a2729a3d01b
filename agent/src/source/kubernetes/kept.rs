//! The state of the API on disk, so that a node that has started anew enforces before it reaches the API.
//!
//! Lines of JSON: a header, one object a line as it was trimmed, and a last line that says how many there are.
//! The file is replaced as a whole, and what has no last line is not taken.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    object::Observed,
    store::{Snapshot, Store},
};

/// Of the format.
const VERSION: u32 = 1;

/// More is not kept: 200,000 pods.
const LIMIT: u64 = 128 << 20;

/// From a change until it is kept.
const DEBOUNCE: Duration = Duration::from_secs(5);

/// Bytes a second, in the long run: a disk that is written to for ever wears out.
const RATE: u64 = 100 << 10;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    version: u32,
    servers: BTreeSet<SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    objects: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) objects: Vec<Observed>,
    /// Of pods that the API had no more, and whose sandboxes were there.
    pub(super) gone: Vec<Observed>,
    pub(super) servers: BTreeSet<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("version {seen}, expected {VERSION}")]
    Version { seen: u32 },
    #[error("it is not whole")]
    Torn,
    #[error("{bytes} bytes, expected at most {LIMIT}")]
    TooLarge { bytes: u64 },
    #[error("it is not what was written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Before an object that the API has no more. An agent that does not know of them reads nothing from such a line.
const GONE: &str = "{\"gone\":";

static WRITING: Mutex<()> = Mutex::new(());

pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("kubernetes.jsonl")
}

/// `None` if nothing was kept.
pub(super) fn read(path: &Path) -> Result<Option<Kept>, KeptError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = file.metadata()?.len();
    if bytes > LIMIT {
        return Err(KeptError::TooLarge { bytes });
    }
    let mut lines = BufReader::new(file).lines();
    let header: Header = serde_json::from_str(&lines.next().ok_or(KeptError::Torn)??)?;
    if header.version != VERSION {
        let seen = header.version;
        return Err(KeptError::Version { seen });
    }
    let (mut objects, mut gone) = (Vec::new(), Vec::new());
    let mut count = 0;
    let mut footer = None;
    for line in lines {
        let line = line?;
        if footer.is_some() {
            return Err(KeptError::Torn);
        }
        if line.starts_with("{\"objects\":") {
            footer = Some(serde_json::from_str::<Footer>(&line)?);
            continue;
        }
        count += 1;
        // A kind that this version does not know is heard of from the API, if at all.
        match line
            .strip_prefix(GONE)
            .and_then(|line| line.strip_suffix('}'))
        {
            Some(line) => gone.extend(Observed::kept(line)?),
            None => objects.extend(Observed::kept(&line)?),
        }
    }
    if footer.is_none_or(|footer| footer.objects != count) {
        return Err(KeptError::Torn);
    }
    Ok(Some(Kept {
        objects,
        gone,
        servers: header.servers,
    }))
}

fn write(path: &Path, snapshot: Snapshot) -> Result<(), KeptError> {
    // The last one, when the agent ends, may come while one before is under way.
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = size(&snapshot);
    let Snapshot {
        objects,
        gone,
        servers,
    } = snapshot;
    if bytes > LIMIT {
        // What is there is older, and has what is deleted by now.
        let _removed = fs::remove_file(path).is_ok();
        return Err(KeptError::TooLarge { bytes });
    }
    let new = path.with_extension("new");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    let mut out = BufWriter::new(file);
    let header = Header {
        version: VERSION,
        servers,
    };
    line(&mut out, &serde_json::to_string(&header)?)?;
    for object in &objects {
        line(&mut out, object)?;
    }
    for object in &gone {
        line(&mut out, &format!("{GONE}{object}}}"))?;
    }
    let footer = Footer {
        objects: objects.len() + gone.len(),
    };
    line(&mut out, &serde_json::to_string(&footer)?)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Of another cluster than the API: not to be enforced once more.
pub(super) fn forget(path: &Path) {
    let _alone = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, path = %path.display(), "what was kept cannot be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

fn size(snapshot: &Snapshot) -> u64 {
    let objects = snapshot.objects.iter().chain(&snapshot.gone);
    let lines = objects.map(|object| object.len() + 1);
    u64::try_from(lines.sum::<usize>()).unwrap_or(u64::MAX)
}

fn line(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")
}

/// Keeps what changes, for ever.
pub(super) async fn keep(store: Arc<Store>, path: PathBuf) {
    loop {
        store.changed().await;
        tokio::time::sleep(DEBOUNCE).await;
        let bytes = write_now(&store, &path).await;
        tokio::time::sleep(Duration::from_secs(bytes / RATE)).await;
    }
}

/// Keeps what there is now. Gives what that took.
pub(super) async fn write_now(store: &Arc<Store>, path: &Path) -> u64 {
    let Some(snapshot) = store.snapshot() else {
        return 0;
    };
    let bytes = size(&snapshot);
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&path, snapshot));
    let trouble = match written.await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = &trouble {
        tracing::error!(error, "the state of the API cannot be kept");
    }
    store.keeping(trouble);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#;

    fn written(folder: &Path) -> PathBuf {
        let path = path(folder);
        let other = |name: &str| NAMESPACE.replace("\"a\"", &format!("\"{name}\"")).into();
        let snapshot = Snapshot {
            objects: vec![NAMESPACE.into(), other("b")],
            gone: vec![other("c")],
            servers: ["192.0.2.1:6443".parse().unwrap()].into(),
        };
        write(&path, snapshot).unwrap();
        path
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&path(folder.path())).unwrap().is_none());
        let kept = read(&written(folder.path())).unwrap().unwrap();
        let names = |objects: &[Observed]| -> Vec<String> {
            let names = objects.iter().map(|object| object.key.name.clone());
            names.collect()
        };
        assert_eq!(names(&kept.objects), ["a", "b"]);
        assert_eq!(names(&kept.gone), ["c"]);
        assert_eq!(kept.servers, ["192.0.2.1:6443".parse().unwrap()].into());
    }

    #[test]
    fn half_of_it_or_another_version_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        for count in 0..lines.len() {
            fs::write(&path, lines[..count].join("\n")).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(error, KeptError::Torn), "{count}: {error}");
        }
        fs::write(&path, whole.replace("\"version\":1", "\"version\":2")).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert_eq!(error, "version 2, expected 1");
        fs::write(&path, "\0").unwrap();
        assert!(matches!(read(&path), Err(KeptError::Json(_))));
    }
}
