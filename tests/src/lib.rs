//! Networks on the real kernel, made for one test and gone after it.
//!
//! A [`lab::Lab`] is a *host* network namespace with peers behind its interfaces. The agent runs
//! in the host namespace, so the network of the machine that runs the tests is never touched.
//!
//! | module | holds |
//! |---|---|
//! | [`lab`] | namespaces, wiring, scratch folder, clean-up |
//! | [`probe`] | one connection attempt and what came of it |
//! | [`serve`] | echo listeners |
//! | [`stream`], [`prober`], [`flood`] | traffic that runs while something else happens |
//! | [`agent`] | the `ringfence` process under test |
//! | [`drops`] | what it says that it has dropped |
//! | [`api_server`] | an API server of Kubernetes without nodes |
//! | [`announced`] | interfaces as the kernel announces them |
//! | [`cgroup`] | a control group and processes in it |
//! | [`cluster`] | a node of Kubernetes, and its pods as namespaces |
//! | [`group_scene`] | the lab of a service that is known by its control group |
//! | [`loose`], [`puppet`] | sockets that are handed about, and a process that uses one |
//! | [`options`] | options of sockets, set by processes of either word size |
//! | [`hold`] | what the programs of an agent hang by, and what others do to that |
//! | [`kernel`] | which BPF objects the kernel holds, and what others do to them |
//! | [`process`] | what the kernel says of a process |
//! | [`collectors`] | collectors that read flow records and do nothing with them |
//! | [`manifest`] | inventory as YAML |
//! | [`kept`] | what an agent has kept of a Kubernetes API |
//! | [`scene`] | the lab that most tests of policy share |
//! | [`soak`] | everything at once, for long |
//! | [`guest`] | the first process of a virtual machine, which runs these tests there |
//! | [`interrupt`] | Ctrl-C as a value |
//! | [`wire`], [`forge`] | frames, forged and heard |
//! | [`report`] | what benchmarks have measured |
//! | [`wait`] | polling with a deadline |
//!
//! Used by `tests/tests/*.rs`, by `cargo xtask demo` and by `cargo xtask vm-test`. Never used by what ships.

pub mod agent;
pub mod announced;
pub mod api_server;
pub mod cgroup;
pub mod cluster;
pub mod collectors;
pub mod consumer;
pub mod drops;
pub mod flood;
pub mod forge;
pub mod group_scene;
pub mod guest;
pub mod hold;
pub mod interrupt;
pub mod kept;
pub mod kernel;
pub mod lab;
pub mod loose;
pub mod manifest;
pub mod options;
pub mod probe;
pub mod prober;
pub mod process;
pub mod puppet;
pub mod report;
pub mod scene;
pub mod serve;
pub mod soak;
pub mod stream;
pub mod wait;
pub mod wire;
