package exec

import (
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/shoal-os/shoal/tasks/job"
)

// leash holds a child. On Windows that is a job object: all that the child starts is in it, and is killed when the last
// handle to it, which is the peer's, is closed.
type leash struct {
	job windows.Handle
}

func self() (string, error) { return os.Executable() }

// beNice does nothing: children are started with a lower priority.
func beNice(job.Kind) {}

func (l *leash) start(cmd *exec.Cmd, _ job.Kind) error {
	h, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return err
	}
	info := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(h, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		windows.CloseHandle(h)
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.BELOW_NORMAL_PRIORITY_CLASS, HideWindow: true}
	if err := cmd.Start(); err != nil {
		windows.CloseHandle(h)
		return err
	}
	// The child does nothing before its first order, so that nothing it starts is outside.
	p, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(cmd.Process.Pid))
	if err == nil {
		err = windows.AssignProcessToJobObject(h, p)
		windows.CloseHandle(p)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		windows.CloseHandle(h)
		return err
	}
	l.job = h
	return nil
}

var (
	ntdll   = windows.NewLazySystemDLL("ntdll.dll")
	suspend = ntdll.NewProc("NtSuspendProcess")
	resume  = ntdll.NewProc("NtResumeProcess")
)

func (l *leash) stop(cmd *exec.Cmd) { call(suspend, cmd) }

func (l *leash) cont(cmd *exec.Cmd) { call(resume, cmd) }

func call(f *windows.LazyProc, cmd *exec.Cmd) {
	const processSuspendResume = 0x0800
	p, err := windows.OpenProcess(processSuspendResume, false, uint32(cmd.Process.Pid))
	if err != nil {
		return
	}
	defer windows.CloseHandle(p)
	_, _, _ = f.Call(uintptr(p))
}

func (l *leash) kill(cmd *exec.Cmd) {
	_ = windows.TerminateJobObject(l.job, CodeKilled)
	_ = cmd.Process.Kill()
}

func (l *leash) release() { windows.CloseHandle(l.job) }

func cpuTime() time.Duration {
	var created, exited, kernel, user windows.Filetime
	if windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user) != nil {
		return 0
	}
	return 100 * time.Duration(int64(kernel.HighDateTime)<<32+int64(kernel.LowDateTime)+
		int64(user.HighDateTime)<<32+int64(user.LowDateTime))
}

func peakOf(*os.ProcessState) int64 { return 0 }
