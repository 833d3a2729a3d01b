//! A unix socket that only its owner reaches, and that goes when nobody listens there any more.

use std::{
    fmt, fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener as BlockingListener,
    },
    path::{Path, PathBuf},
};

use rustix::process::Pid;
use tokio::net::UnixListener;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("another agent listens on {path}{by}; stop it, or give this one another {setting}",
        by = owner(*pid))]
    InUse {
        path: PathBuf,
        pid: Option<i32>,
        setting: &'static str,
    },
    #[error("{path} is not a socket, and is left alone")]
    NotASocket { path: PathBuf },
    #[error("socket {path}")]
    Io { path: PathBuf, source: io::Error },
}

/// The socket while it exists: dropping it takes the file away.
pub(crate) struct Socket {
    /// Made before there is a runtime, which takes it over.
    listener: BlockingListener,
    path: PathBuf,
    /// Device and inode: a file that another agent put there meanwhile is not ours to take away.
    identity: (u64, u64),
}

impl Socket {
    /// Listens at `path`, which `setting` names. A socket that nobody listens on any more is replaced.
    pub(crate) fn bind(path: &Path, setting: &'static str) -> Result<Self, BindError> {
        let fail = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        clear(path, setting)?;
        // Made beside it and moved there, so that the mode is right before anyone can connect.
        let made = path.with_extension(format!("{}.new", std::process::id()));
        drop(fs::remove_file(&made));
        let listener = BlockingListener::bind(&made).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        fs::set_permissions(&made, fs::Permissions::from_mode(0o600)).map_err(fail)?;
        fs::rename(&made, path).map_err(fail)?;
        let metadata = fs::symlink_metadata(path).map_err(fail)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        })
    }

    /// For the runtime that this is called in. The socket is there until `self` is dropped.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours {
            // The next agent replaces a socket that stays behind.
            drop(fs::remove_file(&self.path));
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.path).finish()
    }
}

/// Makes room for a socket, or says why there is none.
fn clear(path: &Path, setting: &'static str) -> Result<(), BindError> {
    let fail = |source| BindError::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(stream) => {
            let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
            let pid = peer.map(|peer| Pid::as_raw(Some(peer.pid)));
            Err(BindError::InUse {
                path: path.to_owned(),
                pid,
                setting,
            })
        }
        // Nobody listens. It is replaced, not removed, so that there is always one.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(fail(error)),
    }
}

fn owner(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}
