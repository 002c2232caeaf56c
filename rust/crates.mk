# SPDX-License-Identifier: GPL-2.0
#
# How one of our modules is made: the crates avio_abi, avio_core and avio_sys, the C shims of its side, and its own
# crate (main.rs), each an object, all in one .ko. Nothing is exported; two modules that use a crate each have a copy.
#
# In: avio-side (host or guest), avio-main (the module's name).

avio-rust := $(dir $(lastword $(MAKEFILE_LIST)))
avio-crates := avio_abi avio_core avio_bindings avio_sys

avio-shims-host := shim_host.o shim_host_bdev.o shim_host_cgroup.o shim_host_deferred.o shim_host_memory.o shim_host_trace.o \
	shim_host_visit.o
avio-shims-guest := shim_guest.o shim_guest_trace.o
avio-shims := $(avio-shims-$(avio-side))

$(avio-main)-y := main.o $(addsuffix .o,$(avio-crates)) $(avio-shims)

avio-cfg := --cfg avio_kernel --cfg avio_$(avio-side)
# The crates' own KUnit suites run once, with the host module.
ifeq ($(avio-side)$(CONFIG_KUNIT),hosty)
avio-cfg += --cfg avio_kunit
endif

avio-flags = --crate-name $(1) --emit=metadata=$(obj)/lib$(1).rmeta -L $(obj) $(avio-cfg)
RUSTFLAGS_avio_abi.o := $(call avio-flags,avio_abi)
RUSTFLAGS_avio_core.o := $(call avio-flags,avio_core) --extern avio_abi
RUSTFLAGS_avio_bindings.o := $(call avio-flags,avio_bindings)
RUSTFLAGS_avio_sys.o := $(call avio-flags,avio_sys) --extern avio_abi --extern avio_core --extern avio_bindings
RUSTFLAGS_main.o := --crate-name $(avio-main)_main -L $(obj) $(avio-cfg) $(addprefix --extern ,avio_abi avio_core avio_sys)
$(foreach shim,$(avio-shims),$(eval CFLAGS_$(shim) := -I$(avio-rust)avio_sys))

# Metadata is a by-product of each object, so the objects stand in for it.
$(obj)/avio_core.o: $(obj)/avio_abi.o
$(obj)/avio_sys.o: $(obj)/avio_core.o $(obj)/avio_bindings.o
$(obj)/main.o: $(obj)/avio_sys.o

$(obj)/avio_abi.o $(obj)/avio_core.o $(obj)/avio_sys.o: $(obj)/%.o: $(avio-rust)%/src/lib.rs FORCE
	+$(call if_changed_rule,rustc_o_rs)

$(addprefix $(obj)/,$(avio-shims)): $(obj)/%.o: $(avio-rust)avio_sys/%.c FORCE
	$(call if_changed_rule,cc_o_c)
	$(call cmd,force_checksrc)

# The kernel crate's own bindings give the types; only our shim's functions are added.
quiet_cmd_avio_bindgen = BINDGEN $@
      cmd_avio_bindgen = $(BINDGEN) $< --rust-target 1.85 --use-core --ctypes-prefix ::kernel::ffi \
	--blocklist-type '.*' --allowlist-function 'avio_.*' --no-layout-tests --no-doc-comments \
	--raw-line '//! The C shim of this module, as bindgen sees it.' \
	--raw-line '\#![allow(missing_docs, non_camel_case_types, unreachable_pub, improper_ctypes, clippy::all)]' \
	--raw-line 'pub use kernel::bindings::*;' \
	-o $@ -- $(c_flags) -I$(avio-rust)avio_sys -w -fno-builtin -D__BINDGEN__ -DMODULE

$(obj)/avio_bindings.rs: $(avio-rust)avio_sys/shim_$(avio-side).h FORCE
	$(call if_changed_dep,avio_bindgen)

targets += avio_bindings.rs
clean-files := avio_bindings.rs libavio_*.rmeta
