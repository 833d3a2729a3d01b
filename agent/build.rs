fn main() {
    println!(
        "cargo:rustc-env=RINGFENCE_BPF_OBJECT={}/../target/bpf/ringfence.bpf.o",
        std::env::var("CARGO_MANIFEST_DIR").unwrap()
    );
}
