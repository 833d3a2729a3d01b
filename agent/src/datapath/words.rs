//! Arrays of 64-bit words that the kernel's programs read and the agent stores through memory.
//!
//! A store is one instruction: a program sees the old word or the new one. Updating an array by
//! system call copies bytes, with no such promise.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// A `BPF_F_MMAPABLE` array map (5.5) of words.
#[derive(Debug)]
pub(crate) struct Words {
    memory: MmapRaw,
    len: u32,
}

/// Words that the agent alone stores, and a copy of them.
#[derive(Debug)]
pub(crate) struct OwnWords {
    words: Words,
    /// Up to the last that was ever other than zero: arrays are as long as they may have to be.
    stored: Vec<u64>,
}

impl OwnWords {
    /// What an earlier agent left is taken for ours.
    pub(crate) fn map(map: &MapData) -> anyhow::Result<Self> {
        let words = Words::map(map)?;
        let used = (0..words.len)
            .rev()
            .find(|index| words.load(*index) != 0)
            .map_or(0, |last| last + 1);
        let stored = (0..used).map(|index| words.load(index)).collect();
        Ok(Self { words, stored })
    }

    pub(crate) fn len(&self) -> u32 {
        self.words.len()
    }

    /// See [`Words::store`].
    pub(crate) fn store(&mut self, index: u32, word: u64) {
        self.words.store(index, word);
        let at = index as usize;
        if at >= self.stored.len() && word != 0 {
            self.stored.resize(at + 1, 0);
        }
        if let Some(stored) = self.stored.get_mut(at) {
            *stored = word;
        }
    }

    pub(crate) fn load(&self, index: u32) -> u64 {
        self.words.load(index)
    }

    /// Puts back what somebody else has changed; how many words that were.
    ///
    /// A look at memory, without a system call: a million words take a millisecond.
    pub(crate) fn restore(&self) -> u64 {
        let stored = self.stored.iter().copied().chain(std::iter::repeat(0));
        let changed = (0..self.words.len).zip(stored).filter(|(index, stored)| {
            // Nothing else is read by what the word says.
            self.words.word(*index).load(Ordering::Relaxed) != *stored
        });
        let mut restored = 0;
        for (index, stored) in changed {
            self.words.store(index, stored);
            restored += 1;
        }
        restored
    }
}

impl Words {
    pub(crate) fn map(map: &MapData) -> anyhow::Result<Self> {
        let len = map.info()?.max_entries();
        let bytes = usize::try_from(len)? * size_of::<u64>();
        let memory: io::Result<MmapRaw> = MmapOptions::new()
            .len(bytes)
            .map_raw(map.fd().as_fd().as_raw_fd());
        Ok(Self {
            memory: memory?,
            len,
        })
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Stores a word, after everything that was written before it.
    pub(crate) fn store(&self, index: u32, word: u64) {
        self.word(index).store(word, Ordering::SeqCst);
    }

    pub(crate) fn load(&self, index: u32) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    /// Adds what others may add to at the same time.
    pub(crate) fn add(&self, index: u32, change: i64) {
        self.word(index)
            .fetch_add(change.cast_unsigned(), Ordering::SeqCst);
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        assert!(index < self.len, "word {index} of {}", self.len);
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned")]
        let words = self.memory.as_mut_ptr().cast::<u64>();
        // SAFETY: within the mapping, which is page-aligned and lives as long as `self`; everyone
        // accesses it word by word.
        unsafe { AtomicU64::from_ptr(words.add(index as usize)) }
    }
}
