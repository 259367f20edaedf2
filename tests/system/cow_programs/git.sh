# needs: git
export GIT_AUTHOR_DATE=2026-01-01T00:00:00Z GIT_COMMITTER_DATE=2026-01-01T00:00:00Z GIT_CONFIG_NOSYSTEM=1
# One thread: several make packs whose bytes depend on who was first.
git() { command git -c user.name=a -c user.email=a@b -c gc.auto=0 -c pack.threads=1 -c safe.directory='*' -c init.defaultBranch=main "$@"; }
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
git fsck --strict 2>&1
git ls-files --stage > staged
git -C clone status --porcelain
# An index has inode numbers and the times of this run in it, which are of no two directories the same.
rm .git/index clone/.git/index
