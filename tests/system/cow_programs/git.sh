# needs: git
export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z GIT_CONFIG_NOSYSTEM=1
git() { command git -c user.name=a -c user.email=a@b -c gc.auto=0 -c safe.directory='*' -c init.defaultBranch=main "$@"; }
git init -q .
git add .
git commit -qm one
echo more >> a
git commit -qam two
git checkout -qb side HEAD~1
echo s > s
git add s
git commit -qm side
git rebase -q main
git gc -q
git clone -q . clone
git status --porcelain
git log --format=%H%s > log
rm -rf .git clone/.git
