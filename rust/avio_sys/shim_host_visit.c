// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/task_work.h>

struct avio_visit {
	struct callback_head work;
	/* Keeps the module: the last reference is given up by code that is not the module's, see avio_visit_run. */
	struct file *hold;
	void (*fn)(void *arg);
	void *arg;
};

static const struct file_operations avio_hold_fops = {
	.owner = THIS_MODULE,
};

/* A task has a preempt notifier while it is in an ioctl of a virtual processor, which is then loaded: see vcpu_load in
 * virt/kvm/kvm_main.c. It goes back into the guest, or to user space, and does its work before (kernel/entry/virt.c).
 */
bool avio_in_vcpu(void)
{
#ifdef CONFIG_PREEMPT_NOTIFIERS
	return in_task() && !hlist_empty(&current->preempt_notifiers);
#else
	return false;
#endif
}

/* When `fn` returns the visit may be gone. The module is not: fput leaves what the last reference takes to a work of
 * its own, behind this one.
 */
static void avio_visit_run(struct callback_head *work)
{
	struct avio_visit *visit = container_of(work, struct avio_visit, work);
	struct file *hold = visit->hold;

	visit->fn(visit->arg);
	fput(hold);
}

void *avio_visit_new(void (*fn)(void *arg), void *arg)
{
	struct avio_visit *visit = kzalloc(sizeof(*visit), GFP_KERNEL_ACCOUNT);
	struct file *hold;

	if (!visit)
		return ERR_PTR(-ENOMEM);
	hold = anon_inode_getfile("[avio]", &avio_hold_fops, NULL, 0);
	if (IS_ERR(hold)) {
		kfree(visit);
		return hold;
	}
	init_task_work(&visit->work, avio_visit_run);
	visit->hold = hold;
	visit->fn = fn;
	visit->arg = arg;
	return visit;
}

void avio_visit_drop(void *dropped)
{
	struct avio_visit *visit = dropped;

	fput(visit->hold);
	kfree(visit);
}

bool avio_visit_queue(void *queued)
{
	struct avio_visit *visit = queued;

	get_file(visit->hold);
	if (!task_work_add(current, &visit->work, TWA_RESUME))
		return true;
	fput(visit->hold);
	return false;
}
