package rig

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/template"
)

//go:embed nginx.conf
var nginxConf string

// ErrNoNginx: there is nothing to compare with.
var ErrNoNginx = errors.New("nginx is not installed: apt-get install nginx-light")

func findNginx() (string, error) {
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} { // which is not on everybody's PATH
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoNginx
}

// Nginx serves the folder root, with as many workers as there are processors.
// sendBuffer 0 leaves the size to the system. Its folder is by name.
func (b *Bench) Nginx(ctx context.Context, name, root string, sendBuffer int) (*Process, error) {
	bin, err := findNginx()
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(b.Work, name)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil { // nginx takes no listener of ours
		return nil, err
	}
	t, err := template.New("nginx.conf").Parse(nginxConf)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(folder, "nginx.conf")
	var text strings.Builder
	err = t.Execute(&text, struct {
		Workers, SendBuffer int
		Folder, Addr, Root  string
	}{runtime.NumCPU(), sendBuffer, folder, addr, root})
	if err == nil {
		err = os.WriteFile(conf, []byte(text.String()), 0o600)
	}
	if err != nil {
		return nil, err
	}
	args := []string{"-p", folder, "-c", conf, "-e", filepath.Join(folder, "error.log")}
	if u, err := user.Current(); err == nil && u.Uid == "0" {
		args = append(args, "-g", "user "+u.Username+";") // the folders are this user's alone
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), bin, args...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := b.watch(cmd)
	p.Addr = addr
	if err := p.answers(ctx); err != nil {
		return nil, err
	}
	p.pids = func() []int { return withChildren(cmd.Process.Pid) }
	return p, nil
}

// withChildren are a process and its children. nginx takes connections before it has any: they are
// looked up each time.
func withChildren(pid int) []int {
	pids := []int{pid}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		return pids // it has ended
	}
	for _, s := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(s); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}
