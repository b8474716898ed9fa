/** A file that is dropped anywhere on the page. */

export function onDrop(take: (file: File) => void): void {
  let depth = 0; // of elements that the pointer entered and did not leave
  const mark = (change: number) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle('dropping', depth > 0);
  };
  const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false;
  addEventListener('dragenter', event => {
    if (hasFiles(event)) mark(1);
  });
  addEventListener('dragleave', event => {
    if (hasFiles(event)) mark(-1);
  });
  addEventListener('dragover', event => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener('drop', event => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(-depth);
    const file = event.dataTransfer?.files[0];
    if (file) take(file);
  });
}
