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
 * QEMU's VM exit clears one of a processor's flags of pending interrupts without a lock (do_vmexit), and with it may go
 * what another thread sets in the same moment. The interrupt stays in the processor's APIC, which does not look at it
 * before it gets another one. Mostly it is the timer's; if the processor then sleeps, all its timers stand still, and with
 * them the guests that they wake, until somebody else wakes it. Newer versions of QEMU clear that flag atomically.
 *
 * So at each exit we write the processor's task priority, unchanged, at which the APIC looks at all that is pending.
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

static struct tracepoint *entry, *leave;

/* As the tracepoint kvm_entry has it. Interrupts are off. */
static void before_entry(void *data, struct kvm_vcpu *vcpu, bool force_immediate_exit)
{
	if (!vcpu->arch.interrupt.injected)
		return;
	arch_smp_send_reschedule(smp_processor_id());
	/* At an exit before the guest's end of interrupt, KVM gives up sparing that one an exit, until there is an event. */
	kvm_make_request(KVM_REQ_EVENT, vcpu);
}

/* As the tracepoint kvm_exit has it. Interrupts are off. */
static void after_exit(void *data, struct kvm_vcpu *vcpu, u32 isa)
{
	unsigned long priority;

	asm volatile("mov %%cr8, %0\n\tmov %0, %%cr8" : "=r" (priority));
}

static void find(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, "kvm_entry"))
		entry = tp;
	if (!strcmp(tp->name, "kvm_exit"))
		leave = tp;
}

static int __init emulated_svm_init(void)
{
	int error;

	for_each_kernel_tracepoint(find, NULL);
	if (!entry || !leave)
		return -ENOENT;
	error = tracepoint_probe_register(leave, after_exit, NULL);
	if (error)
		return error;
	error = tracepoint_probe_register(entry, before_entry, NULL);
	if (error)
		tracepoint_probe_unregister(leave, after_exit, NULL);
	return error;
}

static void __exit emulated_svm_exit(void)
{
	tracepoint_probe_unregister(entry, before_entry, NULL);
	tracepoint_probe_unregister(leave, after_exit, NULL);
	tracepoint_synchronize_unregister();
}

module_init(emulated_svm_init);
module_exit(emulated_svm_exit);
MODULE_DESCRIPTION("Works around defects of QEMU's emulated SVM in test machines");
MODULE_LICENSE("GPL");
