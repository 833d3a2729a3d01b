//! The archive that a kernel unpacks as its first root: cpio, in the form that it calls `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{self, Write};

/// Entries go in one after another; a folder before what lies in it.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    to: W,
    entries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File,
    Program,
    /// What the entry holds is where it leads.
    Link,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    /// `name` without a slash in front.
    pub(crate) fn add(&mut self, name: &str, kind: Kind, content: &[u8]) -> io::Result<()> {
        let mode = match kind {
            Kind::Folder => 0o040_755,
            Kind::File => 0o100_644,
            Kind::Program => 0o100_755,
            Kind::Link => 0o120_777,
        };
        self.entry(name, mode, content)
    }

    /// The mark of the end. Without it the kernel takes the archive for damaged.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.to)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // Number, mode, owner, group, links, time, size, four device numbers, name's size, no sum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        let mut head = b"070701".to_vec();
        for field in fields {
            write!(head, "{field:08X}")?;
        }
        head.extend_from_slice(name.as_bytes());
        head.push(0);
        self.padded(&head)?;
        self.padded(content)
    }

    /// Each part begins at a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        let gap = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all(&[0; 3][..gap])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_kernel_documents_it() {
        let mut archive = Archive::new(Vec::new());
        archive.add("etc", Kind::Folder, &[]).unwrap();
        archive.add("etc/name", Kind::File, b"guest").unwrap();
        let bytes = archive.finish().unwrap();
        let file = "070701\
                    00000002000081A40000000000000000000000010000000000000005\
                    000000000000000000000000000000000000000900000000etc/name\0\0guest\0\0\0";
        let text = String::from_utf8(bytes).unwrap();
        let at = text.find(file);
        assert_eq!(at.map(|at| at % 4), Some(0), "{text:?}");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(text.len() % 4, 0);
    }
}
