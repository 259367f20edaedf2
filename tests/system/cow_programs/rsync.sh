# needs: rsync
rsync -a d/ r/
echo x > r/extra
rsync -a --delete d/ r/
rsync -ac --inplace a r/sub/z
