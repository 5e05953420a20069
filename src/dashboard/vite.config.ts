import { defineConfig } from 'vite'

/** `npm run build:dashboard`. No plugin is needed: the transformer compiles JSX for Preact as tsconfig.json says. */
export default defineConfig({
  base: './',
  // A build needs no cache, and the sources stay free of one.
  cacheDir: '../../node_modules/.cache/vite-dashboard',
  build: {
    outDir: '../../dist/dashboard',
    emptyOutDir: true,
    target: 'es2023',
    // The page's Content-Security-Policy allows files of its own and nothing inline.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    reportCompressedSize: false,
  },
})
