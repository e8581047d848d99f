package cli

import "syscall"

// detachedProcess is DETACHED_PROCESS of CreateProcess: the child has no console.
const detachedProcess = 0x8

// detached gives the child no console and a process group of its own, so that
// neither ctrl-C here nor the end of this window reaches it.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: detachedProcess | syscall.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
}
