// What a Go program does to a tree by its standard library, which makes bare system calls.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"sync"
)

func try(what string, err error) {
	if err != nil {
		fmt.Println(what, err)
	}
}

func main() {
	try("write", os.WriteFile("a.txt", []byte("by go"), 0o644))
	try("mkdir", os.MkdirAll("x/y/z", 0o755))
	var all sync.WaitGroup
	for i := 0; i < 40; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			name := fmt.Sprintf("x/y/z/%02d", i)
			try("write", os.WriteFile(name+".tmp", []byte(name), 0o600))
			try("rename", os.Rename(name+".tmp", name))
			if i%3 == 0 {
				try("remove", os.Remove(name))
			}
		}(i)
	}
	all.Wait()
	try("chmod", os.Chmod("d/b.txt", 0o600))
	try("symlink", os.Symlink("../a.txt", "d/s"))
	try("removeall", os.RemoveAll("d/e"))
	try("rename", os.Rename("d", "moved"))
	try("truncate", os.Truncate("empty", 5))
	try("script", os.WriteFile("script", []byte("#!/bin/sh\necho script $0 $1 >said\n"), 0o755))
	try("exec", exec.Command("./script", "one").Run())
	out, err := exec.Command("/bin/cat", "said", "moved/s").CombinedOutput()
	fmt.Printf("%s %v\n", out, err)
	try("chdir", os.Chdir("moved"))
	where, err := os.Getwd()
	fmt.Println(filepath.Base(where), err)
	try("chdir", os.Chdir(".."))
	var names []string
	try("walk", filepath.Walk(".", func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		names = append(names, fmt.Sprintf("%s %v %d", path, info.Mode(), info.Size()))
		if info.IsDir() {
			names[len(names)-1] = fmt.Sprintf("%s %v", path, info.Mode())
		}
		return nil
	}))
	sort.Strings(names)
	for _, name := range names {
		fmt.Println(name)
	}
}
