# SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
import sys
import host, root, kernel
def m():
    if sys.argv[1]=="setup":
        for f in sys.argv[2:]: print(kernel.ensure(f).path)
        root.ensure()
    elif sys.argv[1]=="run":
        root.ensure(); return root.run(sys.argv[2:], check=False)
host.main(m)
