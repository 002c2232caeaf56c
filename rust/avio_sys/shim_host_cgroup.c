// SPDX-License-Identifier: GPL-2.0
#include "shim_host.h"
#include <linux/blk-cgroup.h>
#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/magic.h>

/* The I/O controller's own state of an open cgroup directory in which the caller could make children. */
static struct cgroup_subsys_state *avio_cgroup_css(struct file *file)
{
#ifdef CONFIG_BLK_CGROUP
	struct inode *inode = file_inode(file);
	struct cgroup_subsys_state *css;
	struct cgroup *cgrp;
	int error;

	if (inode->i_sb->s_magic != CGROUP2_SUPER_MAGIC || !S_ISDIR(inode->i_mode))
		return ERR_PTR(-EBADF);
	error = file_permission(file, MAY_WRITE);
	if (error)
		return ERR_PTR(error);
	/* A cgroup's ID is the number of its inode. */
	cgrp = cgroup_get_from_id(inode->i_ino);
	if (IS_ERR(cgrp))
		return ERR_CAST(cgrp);
	css = cgroup_get_e_css(cgrp, &io_cgrp_subsys);
	if (css->cgroup != cgrp) {
		css_put(css);
		css = ERR_PTR(-ENODEV);
	}
	cgroup_put(cgrp);
	return css;
#else
	return ERR_PTR(-ENODEV);
#endif
}

void *avio_cgroup_get(int fd)
{
	struct cgroup_subsys_state *css;
	struct file *file = fget(fd);

	if (!file)
		return ERR_PTR(-EBADF);
	css = avio_cgroup_css(file);
	fput(file);
	return css;
}

void *avio_cgroup_current(void)
{
#ifdef CONFIG_BLK_CGROUP
	return task_get_css(current, io_cgrp_id);
#else
	return NULL;
#endif
}

void avio_cgroup_put(void *css)
{
	if (css)
		css_put(css);
}

void avio_bio_charge(struct bio *bio, void *css)
{
	bio_associate_blkg_from_css(bio, css);
}
