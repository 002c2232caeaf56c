# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
# A guest that does what its host says. Each line of the console is `ID COMMAND`; what the command printed comes back as
# `GUEST-SAYS ID …`, and then `GUEST-ANSWER ID CODE`. The functions of tasks.sh are commands too.

task_shell() {
    stty -echo
    load
    echo GUEST-SHELL
    while read -r id line; do
        (eval "$line") >"/tmp/answer$id" 2>&1
        code=$?
        sed "s/^/GUEST-SAYS $id /" "/tmp/answer$id"
        echo "GUEST-ANSWER $id $code"
    done
}
