// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/task_work.h>

struct avio_visit {
	struct callback_head work;
	/* The owner's, and one for each time that it is pending. */
	refcount_t refs;
	/* Calls that have begun. */
	atomic_t running;
	/* None begins any more. */
	atomic_t closed;
	/* Keeps the module for as long as the visit is pending. */
	struct file *hold;
	/* Of the process whose virtual processors visit. */
	struct mm_struct *mm;
	void (*fn)(void *arg);
	void *arg;
};

static const struct file_operations avio_hold_fops = {
	.owner = THIS_MODULE,
};

/* A task has a preempt notifier while it is in an ioctl of a virtual processor, which is then loaded: see vcpu_load in
 * virt/kvm/kvm_main.c. It goes back into the guest, or to user space, and does its work before (kernel/entry/virt.c);
 * though it may sleep before that, if its owner wants it to. Who is not to be a user's task never does such work.
 */
bool avio_visit_in_vcpu(void *visit)
{
#ifdef CONFIG_PREEMPT_NOTIFIERS
	return in_task() && current->mm == ((struct avio_visit *)visit)->mm &&
	       !(current->flags & (PF_KTHREAD | PF_EXITING | PF_USER_WORKER)) &&
	       !hlist_empty(&current->preempt_notifiers);
#else
	return false;
#endif
}

unsigned long avio_current(void)
{
	return (unsigned long)current;
}

static void avio_visit_put(struct avio_visit *visit)
{
	if (!refcount_dec_and_test(&visit->refs))
		return;
	mmdrop(visit->mm);
	kfree(visit);
}

/* Either we see that it is closed, or who closes it that we run, and waits. */
static void avio_visit_run(struct callback_head *work)
{
	struct avio_visit *visit = container_of(work, struct avio_visit, work);
	struct file *hold = visit->hold;

	atomic_fetch_inc(&visit->running);
	if (!atomic_read(&visit->closed))
		visit->fn(visit->arg);
	avio_dec_and_wake(&visit->running);
	avio_visit_put(visit);
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
	refcount_set(&visit->refs, 1);
	visit->hold = hold;
	visit->mm = current->mm;
	mmgrab(visit->mm);
	visit->fn = fn;
	visit->arg = arg;
	return visit;
}

/* Waits for calls that have begun only: one that is pending may be the caller's own task's to make. */
void avio_visit_close(void *closed)
{
	struct avio_visit *visit = closed;

	atomic_xchg(&visit->closed, 1);
	avio_wait_zero(&visit->running);
}

void avio_visit_drop(void *dropped)
{
	struct avio_visit *visit = dropped;

	fput(visit->hold);
	avio_visit_put(visit);
}

/* Who has just given up a file that keeps the module may yet have to return from here. */
void avio_visit_exit(void)
{
	synchronize_rcu_tasks();
}

bool avio_visit_queue(void *queued)
{
	struct avio_visit *visit = queued;

	get_file(visit->hold);
	refcount_inc(&visit->refs);
	if (!task_work_add(current, &visit->work, TWA_RESUME))
		return true;
	refcount_dec(&visit->refs);
	fput(visit->hold);
	return false;
}
