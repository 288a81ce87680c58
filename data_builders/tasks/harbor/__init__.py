"""Harbor task folders: write repair tasks as folders that other trainers read, and read such folders as tasks."""
