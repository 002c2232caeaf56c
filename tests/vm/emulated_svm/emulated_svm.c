// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps guests whole where the processor that runs KVM is emulated by QEMU (TCG). For test machines only.
 *
 * QEMU's VMRUN leaves the vector of an interrupt that it has injected behind as a pending exception
 * (target/i386/tcg/system/svm_helper.c, SVM_EVTINJ_TYPE_INTR). Its next VM exit forgets that; but if another thread of
 * QEMU stops the processor before one, the vector is delivered a second time, whether the guest allows interrupts or not.
 * A guest that was about to sleep then sleeps for ever, and one that was entering its kernel dies of a triple fault.
 *
 * So we have KVM exit as soon as the interrupt is injected, in the way that KVM itself does where it must: with interrupts
 * off, an interrupt to the processor itself stays pending until VMRUN is done (svm_vcpu_run in arch/x86/kvm/svm/svm.c).
 *
 * Another defect is kept away by who starts guests (host_a_guest in tests/vm/common.py): QEMU's XRSTOR and FXRSTOR, which
 * any processor executes at any time, write to flags of processor 0 without a lock (cpu_clear_ignne in
 * target/i386/tcg/system/fpu_helper.c), the one for global interrupts among them. A processor 0 that enters and leaves
 * guests can be left with its interrupts off for ever.
 */
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/smp.h>
#include <linux/tracepoint.h>

static struct tracepoint *entry;

/* As the tracepoint kvm_entry has it. Interrupts are off. */
static void before_entry(void *data, struct kvm_vcpu *vcpu, bool force_immediate_exit)
{
	if (!vcpu->arch.interrupt.injected)
		return;
	arch_smp_send_reschedule(smp_processor_id());
	/* At an exit before the guest's end of interrupt, KVM gives up sparing that one an exit, until there is an event. */
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

static void find(struct tracepoint *tp, void *name)
{
	if (!strcmp(tp->name, name))
		entry = tp;
}

static int __init emulated_svm_init(void)
{
	for_each_kernel_tracepoint(find, "kvm_entry");
	if (!entry)
		return -ENOENT;
	return tracepoint_probe_register(entry, before_entry, NULL);
}

static void __exit emulated_svm_exit(void)
{
	tracepoint_probe_unregister(entry, before_entry, NULL);
	tracepoint_synchronize_unregister();
}

module_init(emulated_svm_init);
module_exit(emulated_svm_exit);
MODULE_DESCRIPTION("Works around a defect of QEMU's emulated SVM in test machines");
MODULE_LICENSE("GPL");
